"""
Store objects in Amazon S3, or in a store that speaks its protocol.

Configuration: s3:PutObject, s3:GetObject and s3:DeleteObject on `<bucket>/<prefix>/*`, for the static keys of a user or
for a role. The prefix must be public, by a bucket policy or through a CDN: no ACL is sent, because buckets refuse them
by default. Without keys, this service's own identity assumes the role, and needs sts:AssumeRole.
Implementation: `shared.objects.store`, which takes a sixth of the SDK's CPU time, with temporary keys from
`shared.aws.clients` for a role.
Considerations: a bucket with a dot in its name has no valid certificate under its own host name, so its URLs have the
bucket in the path. One identity of ours assumes the roles of every tenant, so the external id begins with the tenant's
name (`shared.aws.roles.check_role`).
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from shared.aws.clients import AwsClients
from shared.aws.endpoints import domain_of
from shared.aws.roles import AwsCredentials, AwsRole, check_role, checked_token
from shared.config.secret import Secret
from shared.objects.config import S3StoreConfig
from shared.objects.encryption import Sse, check_sse
from shared.outgoing.door import Outgoing
from storage.providers.cloud import CloudProvider
from storage.providers.form_fields import check_prefix, check_url, expect

NAME: Final = "amazon-storage"

ACCESS_KEY = re.compile(r"[A-Za-z0-9_]{16,128}")
"""IAM API reference, AccessKey."""
OTHER_ACCESS_KEY = re.compile(r"[!-~]{1,128}")
"""An access key id of a store other than AWS."""
SECRET_KEY = re.compile(r"[!-~]{1,256}")
BUCKET_NAME = re.compile(r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3 user guide, bucket naming rules."""
REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}")
OTHER_REGION = re.compile(r"[a-z0-9-]{1,32}")


class AmazonStorageConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The Amazon Storage connector of one app.

    `access_key` and `secret_key` are static keys of an IAM user; temporary keys have a `session_token` too. `role_arn`
    replaces them, or is the role that they assume; its `external_id` is the app's key, or begins with it and a colon.
    URLs begin with `cdn_base_url` where a CDN serves the bucket, and keys with `prefix`. `endpoint_url` is the address
    of a store other than AWS. `sse` is the encryption on the server that each object is stored with, `sse_kms_key_id`
    the key of `aws:kms`. A connector that is not `active` is kept and not used.
    """

    access_key: str = ""
    secret_key: Secret = msgspec.field(default_factory=lambda: Secret(""))
    session_token: Secret = msgspec.field(default_factory=lambda: Secret(""))
    role_arn: str = ""
    external_id: str = ""
    bucket_name: str
    region: str
    cdn_base_url: str = ""
    prefix: str = ""
    endpoint_url: str = ""
    sse: Sse = "off"
    sse_kms_key_id: str = ""
    active: bool = True

    @property
    def place(self) -> str:
        """The bucket of the objects, independent of the keys. The same name in another store is another place."""
        store = f"{urlsplit(self.endpoint_url).netloc}/" if self.endpoint_url else ""
        return f"s3://{store}{self.bucket_name}"

    @property
    def credentials(self) -> AwsCredentials | AwsRole:
        """The identity that signs: the keys, or the role that they, or this process's own identity, assume."""
        keys = AwsCredentials(
            access_key_id=self.access_key, secret_access_key=self.secret_key, session_token=self.session_token
        )
        if not self.role_arn:
            return keys
        return AwsRole(role_arn=self.role_arn, external_id=self.external_id, base=keys if self.access_key else None)

    @asynccontextmanager
    async def open(self, *, outgoing: Outgoing, aws: AwsClients) -> AsyncIterator[CloudProvider]:
        """Open the provider, without a request to the bucket. `aws` assumes the role, where there is one."""
        credentials = self.credentials
        role = credentials if isinstance(credentials, AwsRole) else None
        config = S3StoreConfig(
            bucket=self.bucket_name,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            session_token=self.session_token,
            endpoint_url=self.endpoint_url or None,
            sse=self.sse,
            sse_kms_key_id=self.sse_kms_key_id,
        )
        provider = aws.credential_provider(role, region=self.region) if role else None
        async with config.open(outgoing, credential_provider=provider) as store:
            yield CloudProvider(NAME, self.place, self.prefix, self.url, store)

    def url(self, key: str) -> str:
        """The permanent URL of a key. It holds no credential, so it stays valid when keys are revoked."""
        if self.cdn_base_url:
            return f"{self.cdn_base_url}/{key}"
        if self.endpoint_url:
            return f"{self.endpoint_url}/{self.bucket_name}/{key}"
        domain = domain_of(self.region)
        if "." in self.bucket_name:
            return f"https://s3.{self.region}.{domain}/{self.bucket_name}/{key}"
        return f"https://{self.bucket_name}.s3.{self.region}.{domain}/{key}"


def checked(config: AmazonStorageConfig, *, allow_private: bool, app_key: str) -> AmazonStorageConfig:
    """
    Check the connector of an app, without I/O.

    Returns:
        The connector without the spaces and slashes that were copied with its values.

    Raises:
        InvalidError: A field is wrong; names it and what was expected.
    """
    config = msgspec.structs.replace(
        config,
        access_key=config.access_key.strip(),
        secret_key=Secret(config.secret_key.reveal().strip()),
        session_token=Secret(config.session_token.reveal().strip()),
        role_arn=config.role_arn.strip(),
        external_id=config.external_id.strip(),
        bucket_name=config.bucket_name.strip(),
        region=config.region.strip(),
        cdn_base_url=config.cdn_base_url.strip().rstrip("/"),
        prefix=config.prefix.strip().strip("/"),
        endpoint_url=config.endpoint_url.strip().rstrip("/"),
        sse_kms_key_id=config.sse_kms_key_id.strip(),
    )
    aws = not config.endpoint_url
    if config.role_arn or config.external_id:
        check_role(config.role_arn, config.external_id, app_key)
    if config.role_arn and not config.access_key:
        # A secret that a form omits is the saved one: here the secret of the keys that the role replaces.
        config = msgspec.structs.replace(config, secret_key=Secret(""))
    else:
        expect(
            ACCESS_KEY if aws else OTHER_ACCESS_KEY, config.access_key, "access_key", "an access key id, or a role_arn"
        )
        expect(SECRET_KEY, config.secret_key.reveal(), "secret_key", "a secret access key, without spaces")
    config = msgspec.structs.replace(config, session_token=checked_token(config.access_key, config.session_token))
    expect(BUCKET_NAME, config.bucket_name, "bucket_name", "3 to 63 of a-z, 0-9, '-' and '.'")
    expect(REGION if aws else OTHER_REGION, config.region, "region", "an AWS region such as eu-west-1")
    check_prefix(config.prefix)
    check_sse(config.sse, config.sse_kms_key_id)
    check_url(config.endpoint_url, "endpoint_url", allow_private=allow_private, path=False)
    check_url(config.cdn_base_url, "cdn_base_url", allow_private=allow_private, path=True)
    return config
