"""
Write files into a container of Azure Blob Storage.

Configuration: a key of the storage account, or a shared access signature of the container with the permissions read,
create and write (`sp=rcw`). Read is used when a name exists already, to distinguish an unconfirmed write of ours from
another writer's blob. Test Connection also tries delete: without it exports work, and the probe's blob stays.
Implementation: `exporter.destinations.store_destination`, with one Put Blob a file, which takes up to 5,000 MiB. Azure
answers 409 BlobAlreadyExists where S3 answers 412.
Considerations: an account key opens the whole account and cannot be restricted to a container, a signature can. Azure
encrypts everything at rest by itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from exporter.destinations.platform import Platform
from exporter.destinations.store_destination import (
    DIRECTORY_BYTES,
    FILE_LIMITS,
    StoreDestination,
    check_directory,
    folder_of,
    host_of,
)
from exporter.pipeline.ports import Operator
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.objects.azure_accounts import (
    ACCOUNT_NAME,
    AZURE_SUFFIXES,
    CONTAINER_NAME,
    EXPECTED_ACCOUNT,
    EXPECTED_CONTAINER,
    SUFFIX,
    check_account_key,
    check_sas_token,
    is_connection_string,
    signatures_of,
)
from shared.objects.config import AzureStoreConfig, StoreLimits
from shared.outgoing.urls import check_url
from shared.runtime.logs import redactor

FORM: Final = "https://<account>.blob.core.windows.net"


class AzureConfig(Struct, tag="azure", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A directory of a container, or the whole container. `account_key` is a key of the storage account; `sas_token`, a
    shared access signature, may take its place.

    `endpoint_url` is the address of the account (BlobEndpoint), where it is not below `blob.core.windows.net`.
    """

    account_name: Annotated[str, Meta(max_length=64)]
    account_key: Secret = msgspec.field(default_factory=lambda: Secret(""))
    sas_token: Secret = msgspec.field(default_factory=lambda: Secret(""))
    container: Annotated[str, Meta(max_length=64)]
    directory: Annotated[str, Meta(max_length=DIRECTORY_BYTES)] = ""
    endpoint_url: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]*)?)?$(?!\n)")] = ""

    @property
    def operator(self) -> Operator:
        """The operator of the store."""
        return "customer" if self._suffix is None else "provider"

    @property
    def has_our_keys(self) -> bool:
        """Whether the platform's keys open it."""
        return False

    @property
    def kind_in_names(self) -> str:
        """The kind of destination, as it stands in the names of files."""
        return "AzureBlob"

    @property
    def folder(self) -> str:
        """The directory as in keys."""
        return folder_of(self.directory)

    @property
    def _suffix(self) -> str | None:
        """The suffix of the cloud of Azure in which the account is; None for an address that is not Azure's own."""
        if not self.endpoint_url:
            return SUFFIX
        parts = urlsplit(self.endpoint_url)
        if parts.scheme != "https" or parts.path.strip("/"):
            return None
        hosts = {f"{self.account_name}.blob.{suffix}": suffix for suffix in AZURE_SUFFIXES}
        return hosts.get(host_of(self.endpoint_url))

    @property
    def _address(self) -> str:
        """The address of the account, the same for every spelling."""
        if self._suffix:
            return f"{self.account_name}.blob.{self._suffix}"
        return f"{host_of(self.endpoint_url)}/{urlsplit(self.endpoint_url).path.strip('/')}"

    def place(self, app_key: str) -> str:
        """The container as claims of folders name it: the same for every spelling of its address, and every app."""
        return f"{self._address} {self.container}"

    def location(self, app_key: str) -> str:
        """The normalized location of the files, the same for every spelling and every app. Holds no secret."""
        return f"{self._address} {self.container} {self.folder}"

    def check(self, *, allow_private: bool) -> None:
        """
        Check what the types do not express.

        Raises:
            InvalidError: A field is wrong; names it, below `destination`. Never shows a key.
        """
        for name, secret in (("account_key", self.account_key), ("sas_token", self.sas_token)):
            if is_connection_string(secret.reveal()):
                message = "this is a connection string: enter its AccountName and AccountKey, each into its own field"
                raise InvalidError(message, field=f"destination.{name}")
        if not ACCOUNT_NAME.fullmatch(self.account_name):
            raise InvalidError(f"expected {EXPECTED_ACCOUNT}", field="destination.account_name")
        if not CONTAINER_NAME.fullmatch(self.container):
            raise InvalidError(f"expected {EXPECTED_CONTAINER}", field="destination.container")
        if bool(self.account_key) == bool(self.sas_token):
            found = "both" if self.account_key else "neither"
            message = f"expected an account key or a shared access signature, found {found}"
            raise InvalidError(message, field="destination.sas_token")
        if self.account_key:
            check_account_key(self.account_key, "destination.account_key")
        else:
            check_sas_token(self.sas_token, "destination.sas_token")
        check_directory(self.directory)
        if self.endpoint_url:
            check_url(self.endpoint_url, "destination.endpoint_url", allow_private=allow_private, form=FORM)

    @asynccontextmanager
    async def open(
        self, app_key: str, platform: Platform, *, limits: StoreLimits = FILE_LIMITS
    ) -> AsyncIterator[StoreDestination]:
        """Open the destination, without a request to the container."""
        for secret in (self.account_key.reveal(), self.sas_token.reveal(), *signatures_of(self.sas_token)):
            redactor.add(secret)
        config = AzureStoreConfig(
            account_name=self.account_name,
            account_key=self.account_key,
            sas_token=self.sas_token,
            container=self.container,
            endpoint_suffix=self._suffix or SUFFIX,
            endpoint=None if self._suffix else self.endpoint_url.rstrip("/"),
        )
        async with config.open(platform.outgoing, limits) as store:
            yield StoreDestination(store)
