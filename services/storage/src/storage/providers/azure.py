"""
Store objects in Azure Blob Storage, or in a store that speaks its protocol.

Configuration: one of the two keys of a storage account, and a container of it. The container's blobs must be public:
"Allow Blob anonymous access" of the account and the access level "Blob" of the container, or a CDN.
Implementation: `shared.objects.store`, which signs with the account key (Shared Key) and stores up to 8 MiB with one
conditional Put Blob; Azure answers 409 BlobAlreadyExists where S3 answers 412.
Considerations: an account key opens the whole account and cannot be restricted to a container, so a separate account is
better. Azure has no region to enter: the account's name determines it, and a wrong name is a host that does not exist.
An account behind a private endpoint resolves to an address of our own network, and is still Azure's.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from msgspec import Struct

from shared.aws.clients import AwsClients
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
    is_connection_string,
)
from shared.objects.config import AzureStoreConfig
from shared.outgoing.addresses import is_private
from shared.outgoing.door import Outgoing
from shared.outgoing.urls import check_host
from storage.providers.cloud import CloudProvider
from storage.providers.form_fields import check_prefix, check_url, expect

NAME: Final = "azure-storage"

HOST_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class AzureStorageConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The Azure Storage connector of one app.

    The first five fields are the parts of the account's connection string. `blob_endpoint` is its BlobEndpoint, for an
    account whose address is not made of its name and the suffix. URLs begin with `cdn_base_url` where a CDN serves the
    container, and keys with `prefix`. A connector that is not `active` is kept and not used.
    """

    account_name: str
    account_key: Secret
    container_name: str
    default_endpoints_protocol: str = "https"
    endpoint_suffix: str = SUFFIX
    blob_endpoint: str = ""
    cdn_base_url: str = ""
    prefix: str = ""
    active: bool = True

    @property
    def endpoint(self) -> str:
        """The account's address, or `blob_endpoint` in its place."""
        if self.blob_endpoint:
            return self.blob_endpoint
        return f"{self.default_endpoints_protocol}://{self.account_name}.blob.{self.endpoint_suffix}"

    @property
    def custom_host_field(self) -> str:
        """The field that names a host outside Azure; empty where there is none."""
        if self.blob_endpoint:
            return "blob_endpoint"
        return "" if self.endpoint_suffix in AZURE_SUFFIXES else "endpoint_suffix"

    @property
    def place(self) -> str:
        """The container of the objects, independent of the key. The same account in another store is another place."""
        if not self.custom_host_field:
            return f"azure://{self.account_name}/{self.container_name}"
        _, _, address = self.endpoint.partition("://")
        return f"azure://{self.account_name}@{address}/{self.container_name}"

    def store(self) -> AzureStoreConfig:
        """The configuration of the object store for the container."""
        return AzureStoreConfig(
            account_name=self.account_name,
            account_key=self.account_key,
            container=self.container_name,
            endpoint_suffix=self.endpoint_suffix,
            endpoint=self.endpoint if self.custom_host_field or self.default_endpoints_protocol != "https" else None,
        )

    @asynccontextmanager
    async def open(self, *, outgoing: Outgoing, aws: AwsClients) -> AsyncIterator[CloudProvider]:
        """Open the provider, without a request to the container. `aws` is unused: other providers need it."""
        async with self.store().open(outgoing) as store:
            yield CloudProvider(NAME, self.place, self.prefix, self.url, store)

    def url(self, key: str) -> str:
        """The permanent URL of a key. It holds no credential, so it stays valid when keys are revoked."""
        return f"{self.cdn_base_url or f'{self.endpoint}/{self.container_name}'}/{key}"


def checked(config: AzureStorageConfig, *, allow_private: bool, app_key: str) -> AzureStorageConfig:
    """
    Check a connector, without I/O. `app_key` is unused: several apps may enter the same account.

    Returns:
        The connector without the spaces and slashes that were copied with its values.

    Raises:
        InvalidError: A field is wrong; names it and what was expected.
    """
    config = msgspec.structs.replace(
        config,
        account_name=config.account_name.strip(),
        account_key=Secret(config.account_key.reveal().strip()),
        container_name=config.container_name.strip().strip("/"),
        default_endpoints_protocol=config.default_endpoints_protocol.strip().lower(),
        endpoint_suffix=config.endpoint_suffix.strip().strip("./").lower(),
        blob_endpoint=config.blob_endpoint.strip().rstrip("/"),
        cdn_base_url=config.cdn_base_url.strip().rstrip("/"),
        prefix=config.prefix.strip().strip("/"),
    )
    _refuse_connection_string(config)
    expect(ACCOUNT_NAME, config.account_name, "account_name", EXPECTED_ACCOUNT)
    check_account_key(config.account_key, "account_key")
    expect(CONTAINER_NAME, config.container_name, "container_name", EXPECTED_CONTAINER)
    protocols = "https|http" if allow_private else "https"
    expect(re.compile(protocols), config.default_endpoints_protocol, "default_endpoints_protocol", "https")
    _check_suffix(config.endpoint_suffix, allow_private=allow_private)
    check_host(f"{config.account_name}.blob.{config.endpoint_suffix}", "endpoint_suffix", allow_private=True)
    check_url(config.blob_endpoint, "blob_endpoint", allow_private=allow_private, path=True)
    check_url(config.cdn_base_url, "cdn_base_url", allow_private=allow_private, path=True)
    check_prefix(config.prefix)
    return config


def _refuse_connection_string(config: AzureStorageConfig) -> None:
    for field in config.__struct_fields__:
        value = getattr(config, field)
        text = value.reveal() if isinstance(value, Secret) else str(value)
        if is_connection_string(text):
            raise InvalidError(
                "this is a connection string: enter its parts, AccountName, AccountKey, DefaultEndpointsProtocol and "
                "EndpointSuffix, each into its own field",
                field=field,
            )


def _check_suffix(suffix: str, *, allow_private: bool) -> None:
    expect(HOST_NAME, suffix, "endpoint_suffix", f"a host name such as {SUFFIX}")
    if suffix.startswith("blob."):
        raise InvalidError(
            f"expected what follows 'blob.' in the account's address, such as {SUFFIX}", field="endpoint_suffix"
        )
    if not allow_private and is_private(suffix):
        raise InvalidError("expected a host that is reachable from the internet", field="endpoint_suffix")
