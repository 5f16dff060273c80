"""
Configurations of object stores, each of which opens its own: Amazon S3, Azure Blob Storage, a local directory.

Implementation: `open` gives the `ObjectStore` and asks nothing of the provider yet. obstore follows redirects, and
cannot be told which addresses to refuse. So only the hosts of AWS and Azure are reached directly; requests to others go
by the relay of `shared.outgoing`.

Considerations: obstore reads `AWS_*` and `AZURE_*` of the environment. Every one that could send keys elsewhere, or
sign with others, is overridden here. `AWS_SERVER_SIDE_ENCRYPTION`, `AWS_SSE_KMS_KEY_ID` and `AWS_CHECKSUM_ALGORITHM`
cannot be, and must not be set for a service.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from obstore.store import AzureStore, LocalStore, S3Store

from shared.aws.endpoints import domain_of, is_aws
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.objects.azure_accounts import check_account_key
from shared.objects.encryption import Sse, check_sse, sse_options
from shared.objects.errors import translated
from shared.objects.keys import folder_of
from shared.objects.local_files import LocalFiles
from shared.objects.store import ObjectStore
from shared.outgoing.door import Outgoing

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

    # Only its name: a caller with keys of its own needs no SDK, which takes 10 MB.
    from shared.aws.roles import CredentialProvider


class StoreLimits(Struct, frozen=True, kw_only=True):
    """Limits of one request and of obstore's own retries. A request that a person waits for takes shorter ones."""

    connect_s: float = 5.0
    request_s: float = 30.0
    retries: int = 2


USUAL: Final = StoreLimits()
UNUSED_PROXY: Final = "http://127.0.0.1:9"

Folder = Annotated[str, Meta(max_length=512)]
Endpoint = Annotated[str, Meta(pattern=r"^https?://[^\s]+$")]


class S3StoreConfig(Struct, tag="s3", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A bucket of S3, or of a store that speaks S3 when `endpoint_url` is set, which is then asked in path style.

    `sse` is the encryption that each object is stored with, `sse_kms_key_id` the key of `aws:kms`. Temporary keys have
    a `session_token`. The keys may be left out where `open` is given a provider of temporary ones.
    """

    bucket: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{2,32}$")]
    access_key_id: str = ""
    secret_access_key: Secret = Secret("")
    session_token: Secret = Secret("")
    endpoint_url: Endpoint | None = None
    prefix: Folder = ""
    sse: Sse = "off"
    sse_kms_key_id: str = ""

    @asynccontextmanager
    async def open(
        self,
        outgoing: Outgoing,
        limits: StoreLimits = USUAL,
        *,
        credential_provider: "CredentialProvider | None" = None,
        guarded: bool = True,
    ) -> AsyncIterator["ObjectStore"]:
        """
        Asks nothing of the bucket yet. `guarded` tells that a customer names the endpoint.

        Raises:
            InvalidError: A field cannot be right.
        """
        check_sse(self.sse, self.sse_kms_key_id)
        virtual = self.endpoint_url is None and "." not in self.bucket
        at_aws = f"{self.bucket + '.' if virtual else ''}s3.{self.region}.{domain_of(self.region)}"
        endpoint = self.endpoint_url or f"https://{at_aws}"
        place = f"the bucket {self.bucket}"
        # An interface endpoint of a VPC is AWS's own, and private.
        guarded = guarded and not is_aws(endpoint, "s3")
        async with _reached(endpoint, self.endpoint_url is not None, outgoing, limits, guarded=guarded) as reached:

            def make() -> S3Store:
                return S3Store(
                    self.bucket,
                    prefix=folder_of(self.prefix),
                    region=self.region,
                    endpoint=reached.url,
                    aws_endpoint_url_s3=reached.url,
                    virtual_hosted_style_request=virtual,
                    # A provider of keys rules out every key and token of the environment.
                    credential_provider=cast(Any, credential_provider or self._keys()),
                    skip_signature=False,
                    unsigned_payload=False,
                    s3_express=False,
                    request_payer=False,
                    # Not every store that speaks S3 knows DeleteObjects, and we delete one at a time.
                    disable_bulk_delete=True,
                    client_options=reached.client_options,
                    retry_config=_retry_config(limits),
                    config=request_options(
                        sse_options(self.sse, self.sse_kms_key_id), checksums=is_aws(endpoint, "s3")
                    ),
                )

            with translated("open", place):
                store = make()
            # obstore keeps the keys of a provider until their own end, and cannot be told that they ended early.
            renew = make if credential_provider is not None else None
            yield ObjectStore(store, provider="s3", place=place, renew=renew)

    def _keys(self) -> Any:
        # Keys hold no white space; a line break copied along with one is the commonest mistake in a form.
        key_id, secret = self.access_key_id.strip(), self.secret_access_key.reveal().strip()
        token = self.session_token.reveal().strip()
        for field, value in (("access_key_id", key_id), ("secret_access_key", secret), ("session_token", token)):
            missing = not value and field != "session_token"
            if missing or not value.isascii() or not value.isprintable():
                raise InvalidError("expected a key as AWS gives it", field=field)

        # No coroutine: obstore makes it and drops it unawaited when the call is cancelled right then.
        def provide() -> dict[str, str | None]:
            return {"access_key_id": key_id, "secret_access_key": secret, "token": token or None, "expires_at": None}

        return provide


class AzureStoreConfig(Struct, tag="azure", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A container of Azure Blob Storage. `endpoint_suffix` is that of the cloud; `endpoint` is the account's own address,
    where it is not made of its name and a suffix that Microsoft alone assigns names below. A shared access signature,
    `sas_token`, takes the place of the account's key.
    """

    account_name: Annotated[str, Meta(pattern=r"^[a-z0-9]{3,24}$")]
    account_key: Secret = Secret("")
    sas_token: Secret = Secret("")
    container: Annotated[str, Meta(pattern=r"^[a-z0-9$][a-z0-9-]{2,62}$")]
    endpoint_suffix: str = "core.windows.net"
    endpoint: Endpoint | None = None
    prefix: Folder = ""

    @asynccontextmanager
    async def open(
        self, outgoing: Outgoing, limits: StoreLimits = USUAL, *, guarded: bool = True
    ) -> AsyncIterator["ObjectStore"]:
        """
        Asks nothing of the container yet. `guarded` tells that a customer names the endpoint.

        Raises:
            InvalidError: A field cannot be right.
        """
        keys = self._keys()
        endpoint = self.endpoint or f"https://{self.account_name}.blob.{self.endpoint_suffix}"
        place = f"the container {self.container}"
        async with _reached(endpoint, self.endpoint is not None, outgoing, limits, guarded=guarded) as reached:
            with translated("open", place):
                store = AzureStore(
                    self.container,
                    prefix=folder_of(self.prefix),
                    account_name=self.account_name,
                    **keys,
                    endpoint=reached.url,
                    use_emulator=False,
                    use_fabric_endpoint=False,
                    skip_signature=False,
                    client_options=reached.client_options,
                    retry_config=_retry_config(limits),
                )
            yield ObjectStore(store, provider="azure", place=place)

    def _keys(self) -> Any:
        key, token = self.account_key.reveal().strip(), self.sas_token.reveal().strip().removeprefix("?")
        if token and not key:
            return {"sas_key": token, "credential_type": "sas_token"}
        check_account_key(Secret(key), "account_key")
        return {"account_key": key, "credential_type": "access_key"}


class LocalStoreConfig(Struct, tag="local", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A directory of this machine, made when it is not there."""

    root: Annotated[str, Meta(min_length=1)]
    prefix: Folder = ""

    @asynccontextmanager
    async def open(
        self, outgoing: Outgoing | None = None, limits: StoreLimits = USUAL, *, guarded: bool = True
    ) -> AsyncIterator["ObjectStore"]:
        """There is no network here, so the arguments change nothing."""
        files = await asyncio.to_thread(LocalFiles, Path(self.root) / (folder_of(self.prefix) or ""))
        yield ObjectStore(LocalStore(files.root), provider="local", place="the local store", files=files)


StoreConfig = S3StoreConfig | AzureStoreConfig | LocalStoreConfig
"""Every kind of object store. The contract suite runs over each."""


def request_options(encryption: dict[str, Any], *, checksums: bool) -> Any:
    """
    obstore's options of requests to S3.

    Args:
        encryption: Those of `shared.objects.encryption`.
        checksums: Sends a checksum with each object and part, without which a bucket with Object Lock takes none (S3
            user guide, Object Lock considerations). Other stores than AWS's refuse headers that they do not know.
    """
    return encryption | ({"checksum_algorithm": "SHA256"} if checksums else {})


class _Reached(Struct, frozen=True):
    """The address that obstore is given, and the options of its client."""

    url: str
    client_options: "ClientConfig"


@asynccontextmanager
async def _reached(
    endpoint: str, custom: bool, outgoing: Outgoing, limits: StoreLimits, *, guarded: bool
) -> AsyncIterator[_Reached]:
    """
    The way to an endpoint: by the relay where it is `custom`, or else as the provider's own hosts are reached.

    Raises:
        InvalidError: It is no address.
    """
    options: ClientConfig = {
        "allow_http": custom,
        "connect_timeout": timedelta(seconds=limits.connect_s),
        "timeout": timedelta(seconds=limits.request_s),
        # S3 closes a connection that is idle for 20 s, and a request on it is then lost.
        "pool_idle_timeout": timedelta(seconds=15),
        "user_agent": "millrace",
    }
    if custom:
        async with outgoing.relay.admit(endpoint, guarded=guarded, connect_s=limits.connect_s) as host:
            options["proxy_url"] = host.proxy_url
            yield _Reached(host.url, options)
        return
    if (proxy := outgoing.proxies.of(endpoint)) is not None:
        options["proxy_url"] = proxy
    else:
        # Without a proxy obstore would take the one of the environment, and it knows no ports in `NO_PROXY`.
        options |= {"proxy_url": UNUSED_PROXY, "proxy_excludes": urlsplit(endpoint).hostname or ""}
    if outgoing.authorities is not None:
        options["root_certificate"] = outgoing.authorities
    yield _Reached(endpoint, options)


def _retry_config(limits: StoreLimits) -> "RetryConfig":
    return {
        "max_retries": limits.retries,
        "retry_timeout": timedelta(seconds=limits.request_s),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
    }
