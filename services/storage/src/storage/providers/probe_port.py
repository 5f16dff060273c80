"""The port of Test Connection that each provider satisfies: sample object, steps, and findings common to all."""

from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct

from shared.contracts.connection_report import Finding
from shared.errors import MillraceError
from storage.placement.failover import ObjectHeaders

HEADERS: Final = ObjectHeaders(
    content_type="text/plain; charset=utf-8", content_disposition='attachment; filename="millrace-test.txt"'
)


class Sample(Struct, frozen=True, kw_only=True):
    """The object that Test Connection stores, reads and deletes."""

    key: str
    body: bytes
    headers: ObjectHeaders = HEADERS


class ConnectorForm(Protocol):
    """A connector whose fields were checked."""

    @property
    def prefix(self) -> str: ...

    def url(self, key: str) -> str: ...


class ProviderWording(Struct, frozen=True, kw_only=True):
    """
    The terms and hints of a provider in findings.

    `container` is its term for a bucket. `not_public` and `no_cors` are hints. `codes` holds hints for the error codes
    of public reads.
    """

    container: str
    not_public: str
    no_cors: str
    codes: Mapping[str, str]


class ProviderProbe(Protocol):
    """
    A provider's own steps of Test Connection.

    They are called in this order, each at most once, and cancelled at their deadline. `failure` explains an error of
    the types in `errors`.
    """

    wording: ProviderWording
    errors: tuple[type[Exception], ...]

    def checked(self) -> ConnectorForm:
        """Check the connector of the form, which all later steps use. Raises `InvalidError`."""
        ...

    async def check_endpoint(self, sample: Sample) -> Finding:
        """Check that the endpoint answers, with any status."""
        ...

    async def region(self) -> Finding:
        """Compare the region with the entered one."""
        ...

    async def put(self, sample: Sample) -> Finding:
        """Store the sample as uploads do."""
        ...

    async def get(self, sample: Sample) -> tuple[bytes, ObjectHeaders]:
        """Read the sample with the credentials."""
        ...

    async def delete(self, sample: Sample) -> int:
        """Delete the sample. Returns the HTTP status."""
        ...

    def failure(self, error: Exception) -> Finding:
        """The finding of one of `errors`. Holds no secret."""
        ...


def field_finding(error: MillraceError) -> Finding:
    """The finding of an error about a field of the form."""
    message = f"{error.field}: {error.message}" if error.field else error.message
    return Finding(status="failed", code=error.code, message=message)


def server_error_hint(http_status: int | None) -> str | None:
    """The hint for a status of 500 or more, for errors whose code has no hint."""
    if http_status is None or http_status < 500:
        return None
    if http_status == 501:
        return "The endpoint does not know this operation."
    return "The provider has trouble of its own; nothing is wrong with the keys. Try again."
