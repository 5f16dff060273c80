"""
Steps of Test Connection for Azure Blob Storage.

Configuration: an account key permits every step.
Implementation: the object store that uploads use, without retries: Azure's own library would retry for more than a
minute. Its errors hold Azure's code and status.
Considerations: a wrong account name shows only as a host that does not exist.
"""

from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

from shared.aws.clients import AwsClients
from shared.contracts.connection_report import ConnectionReport, Finding
from shared.errors import MillraceError, NotFoundError
from shared.objects.config import StoreLimits
from shared.objects.errors import AZURE_HINTS, network_code, store_code, store_status
from shared.objects.store import ObjectStore
from shared.outgoing.addresses import unreachable
from shared.outgoing.door import Outgoing
from shared.runtime.logs import redactor
from storage.placement.failover import ObjectHeaders
from storage.providers.azure import AzureStorageConfig, checked
from storage.providers.probe import probe
from storage.providers.probe_port import ProviderWording, Sample, field_finding, server_error_hint

CONNECT_S: Final = 5.0

WORDING: Final = ProviderWording(
    container="container",
    not_public=(
        "Let everybody read the container's blobs (access level Blob), or put a CDN before it and enter its address as "
        "cdn_base_url."
    ),
    no_cors=(
        "For fonts, give the account's Blob service a CORS rule with origins * and method GET, and let a CDN before it "
        "pass Origin on."
    ),
    codes={
        "PublicAccessNotPermitted": (
            "The account disallows anonymous reading: switch on 'Allow Blob anonymous access' in its configuration, or "
            "put a CDN before the container and enter its address as cdn_base_url."
        ),
        "BlobNotFound": "cdn_base_url has to lead to the top of this container.",
    },
)

CONNECTING: Final = {
    "HostNotFound": "The host does not exist: is account_name right, and the address after it?",
    "CertificateInvalid": "The host's certificate is not valid: check blob_endpoint and endpoint_suffix.",
    "TlsFailed": "The host does not speak TLS: check blob_endpoint and default_endpoints_protocol.",
    "Timeout": "The host does not answer: check blob_endpoint and endpoint_suffix, and the firewall.",
    "ConnectionFailed": "The host takes no connection: check blob_endpoint and endpoint_suffix, and the firewall.",
    "ConnectionClosed": "The host closes the connection: is this Azure Blob Storage?",
    "LeadsElsewhere": "The host leads to another address: is this Azure Blob Storage?",
    "Redirect": "The host leads to another address: is this Azure Blob Storage?",
}
"""Hints for requests without a response."""


async def test_connection(
    config: AzureStorageConfig,
    *,
    app_key: str,
    aws: AwsClients,
    outgoing: Outgoing,
    allow_private: bool,
    deadline_s: float,
) -> ConnectionReport:
    """Test a connector, saved or not, within the deadline. `aws` is unused: other providers need it."""
    redactor.add(config.account_key.reveal())
    async with AsyncExitStack() as stack:
        limits = StoreLimits(connect_s=CONNECT_S, request_s=deadline_s, retries=0)
        provider = _AzureProbe(
            config, app_key=app_key, limits=limits, stack=stack, outgoing=outgoing, allow_private=allow_private
        )
        return await probe(provider, http=outgoing.guarded, deadline_s=deadline_s)


class _AzureProbe:
    """Satisfies `ProviderProbe`. `stack` closes its store."""

    wording = WORDING
    errors: tuple[type[Exception], ...] = (MillraceError,)

    def __init__(
        self,
        config: AzureStorageConfig,
        *,
        app_key: str,
        limits: StoreLimits,
        stack: AsyncExitStack,
        outgoing: Outgoing,
        allow_private: bool,
    ) -> None:
        self._config = config
        self._app_key = app_key
        self._limits = limits
        self._stack = stack
        self._outgoing = outgoing
        self._allow_private = allow_private
        self._open: ObjectStore | None = None

    def checked(self) -> AzureStorageConfig:
        """See `ProviderProbe`."""
        self._config = checked(self._config, allow_private=self._allow_private, app_key=self._app_key)
        return self._config

    async def check_endpoint(self, sample: Sample) -> Finding:
        """See `ProviderProbe`. Reads an object that does not exist: the answer to a HEAD would have no code."""
        config = self._config
        self._open = await self._stack.enter_async_context(config.store().open(self._outgoing, self._limits))
        try:
            await self._open.get(sample.key)
        except MillraceError as error:
            if (status := store_status(error)) is None:
                raise
            return Finding(message=f"{urlsplit(config.endpoint).netloc} answers", http_status=status)
        raise NotFoundError("the endpoint has an object that nobody stored: is this Azure Blob Storage?")

    async def region(self) -> Finding:
        """See `ProviderProbe`."""
        return Finding(message="Azure has no region to compare: the account's name leads to it")

    async def put(self, sample: Sample) -> Finding:
        """See `ProviderProbe`."""
        await self._store.put_if_absent(
            sample.key,
            sample.body,
            content_type=sample.headers.content_type,
            cache_control=sample.headers.cache_control,
            content_disposition=sample.headers.content_disposition,
        )
        return Finding(message=f"stored {sample.key}", http_status=201)

    async def get(self, sample: Sample) -> tuple[bytes, ObjectHeaders]:
        """See `ProviderProbe`."""
        found = await self._store.get(sample.key)
        return found.data, ObjectHeaders(
            content_type=found.content_type,
            content_disposition=found.content_disposition or "",
            cache_control=found.cache_control or "",
        )

    async def delete(self, sample: Sample) -> int:
        """See `ProviderProbe`."""
        await self._store.delete(sample.key)
        return 202

    def failure(self, error: Exception) -> Finding:
        """See `ProviderProbe`."""
        assert isinstance(error, MillraceError)
        status = store_status(error)
        code = store_code(error) or network_code(error)
        if code == "PrivateAddress":
            return field_finding(unreachable(self._config.custom_host_field))
        if code is None and status is None:
            return field_finding(error)
        hint = AZURE_HINTS.get(code or "") or CONNECTING.get(code or "") or server_error_hint(status)
        return Finding(status="failed", code=code or error.code, http_status=status, message=error.message, hint=hint)

    @property
    def _store(self) -> ObjectStore:
        assert self._open is not None
        return self._open
