"""The port of Test Connection that each provider satisfies: sample object, steps, and findings common to all."""

from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct

from shared.contracts.connection_report import Finding
from shared.errors import MillraceError
from storage.placement.failover import Headers

HEADERS: Final = Headers(
    content_type="text/plain; charset=utf-8", content_disposition='attachment; filename="millrace-test.txt"'
)


class Sample(Struct, frozen=True, kw_only=True):
    """The object that a test stores, reads and deletes."""

    key: str
    body: bytes
    headers: Headers = HEADERS


class ConnectorForm(Protocol):
    """A connector whose fields are right."""

    @property
    def prefix(self) -> str: ...

    def url(self, key: str) -> str: ...


class ProviderTerms(Struct, frozen=True, kw_only=True):
    """
    How a provider's things are called, and what to do in it.

    `not_public` and `no_cors` are hints; `codes` holds better ones for what the public is told.
    """

    container: str
    not_public: str
    no_cors: str
    codes: Mapping[str, str]


class ProviderProbe(Protocol):
    """
    A provider's own part. The steps are asked in this order and each at most once; what they raise of `errors` is
    explained by `failure`, and they are cancelled when their time is over.
    """

    terms: ProviderTerms
    errors: tuple[type[Exception], ...]

    def checked(self) -> ConnectorForm:
        """The connector of the form, which all later steps use. Raises `InvalidError`."""
        ...

    async def reach(self, sample: Sample) -> Finding:
        """Whether the endpoint answers, whatever it says."""
        ...

    async def region(self) -> Finding:
        """Whether it is the right one."""
        ...

    async def put(self, sample: Sample) -> Finding:
        """Store the sample as the service stores."""
        ...

    async def get(self, sample: Sample) -> tuple[bytes, Headers]:
        """What is stored, by the credentials."""
        ...

    async def delete(self, sample: Sample) -> int:
        """Take the sample away, and tell the HTTP status."""
        ...

    def failure(self, error: Exception) -> Finding:
        """What one of `errors` means. Holds no secret."""
        ...


def field_finding(error: MillraceError) -> Finding:
    """The finding of an error that names a field of the form."""
    message = f"{error.field}: {error.message}" if error.field else error.message
    return Finding(status="failed", code=error.code, message=message)


def server_error_hint(http_status: int | None) -> str | None:
    """What to do about a status of the provider's own failures, where no code tells more."""
    if http_status is None or http_status < 500:
        return None
    if http_status == 501:
        return "The endpoint does not know this operation."
    return "The provider has trouble of its own; nothing is wrong with the keys. Try again."
