"""
Write files into a bucket of Amazon S3, or of a store that speaks S3.

Configuration: s3:PutObject and s3:GetObject on `<directory>/*`. GetObject is used when a key exists already, to
distinguish an unconfirmed write of ours from another writer's object. Test Connection asks for more, and does without
it (`exporter.destinations.s3_checks`). A role is assumed by the identity of this process.
Implementation: `exporter.destinations.store_destination`.
Considerations: names hold a space and colons, which S3 accepts and Windows file systems do not. A directory belongs to
one export, across all apps (`exporter.folders`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from exporter.destinations.platform import Platform
from exporter.destinations.s3_checks import S3Inspection
from exporter.destinations.store_destination import (
    DIRECTORY_BYTES,
    FILE_LIMITS,
    StoreDestination,
    check_directory,
    folder_of,
    host_of,
)
from exporter.pipeline.ports import Operator
from shared.aws.endpoints import domain_of, is_aws
from shared.aws.roles import AwsCredentials, AwsRole, CredentialProvider, check_role_arn, checked_token
from shared.config.secret import Secret
from shared.contracts.connection_report import Check
from shared.errors import InvalidError
from shared.objects.config import S3StoreConfig, StoreLimits
from shared.objects.encryption import Sse, check_sse
from shared.outgoing.urls import check_url
from shared.runtime.logs import redactor

ENDPOINT_FIELD: Final = "destination.endpoint_url"


class S3Config(Struct, tag="s3", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A directory of a bucket, or the whole bucket. `access_key` and `secret_key` are those of an IAM user; temporary keys
    have a `session_token` too. Or else `role_arn` is a role whose trust policy demands the app's external id.

    `sse` is the encryption on the server that each file is stored with, and `sse_kms_key_id` the key of `aws:kms`.
    `endpoint_url` is the address of another store that speaks S3. Without it, AWS is used.
    """

    bucket: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$(?!\n)")]
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{2,32}$(?!\n)")]
    access_key: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_]{3,128})?$(?!\n)")] = ""
    secret_key: Secret = msgspec.field(default_factory=lambda: Secret(""))
    session_token: Secret = msgspec.field(default_factory=lambda: Secret(""))
    role_arn: Annotated[str, Meta(max_length=2048)] = ""
    sse: Sse = "off"
    sse_kms_key_id: Annotated[str, Meta(max_length=2048)] = ""
    directory: Annotated[str, Meta(max_length=DIRECTORY_BYTES)] = ""
    endpoint_url: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?)?$(?!\n)")] = ""

    def __post_init__(self) -> None:
        if not self.access_key:
            # A secret that a form omits is the saved one: here that of the keys which a role replaces.
            force_setattr(self, "secret_key", Secret(""))
            force_setattr(self, "session_token", Secret(""))

    @property
    def operator(self) -> Operator:
        """The operator of the store."""
        return "customer" if self.endpoint_url and not is_aws(self.endpoint_url, "s3") else "provider"

    @property
    def has_our_keys(self) -> bool:
        """Whether the platform's keys open it."""
        return bool(self.role_arn)

    @property
    def kind_in_names(self) -> str:
        """The kind of destination, as it stands in the names of files."""
        return "S3"

    @property
    def folder(self) -> str:
        """The directory as it stands in keys: one slash between its parts, none at its ends."""
        return folder_of(self.directory)

    @property
    def identity(self) -> str:
        """The role or the access key id that writes; empty where the form names neither yet."""
        return self.role_arn or self.access_key

    def place(self, app_key: str) -> str:
        """The bucket as claims of folders name it: the same for every spelling of its endpoint, and every app."""
        if not self.endpoint_url or is_aws(self.endpoint_url, "s3"):
            return f"{domain_of(self.region)} {self.bucket}"
        return f"{host_of(self.endpoint_url)} {self.bucket}"

    def location(self, app_key: str) -> str:
        """The normalized location of the files, the same for every spelling and every app. Holds no secret."""
        endpoint = self.endpoint_url.rstrip("/").lower() or "s3"
        return f"{endpoint} {self.bucket} {self.folder}"

    def check(self, *, allow_private: bool) -> None:
        """
        Check what the types do not express.

        Raises:
            InvalidError: A field is wrong; names it, below `destination`.
        """
        self._check_identity()
        check_sse(self.sse, self.sse_kms_key_id, field="destination.sse_kms_key_id")
        check_directory(self.directory)
        if self.endpoint_url:
            check_url(self.endpoint_url, ENDPOINT_FIELD, allow_private=allow_private)

    def _check_identity(self) -> None:
        if self.role_arn:
            check_role_arn(self.role_arn, field="destination.role_arn")
            if self.access_key:
                raise InvalidError("expected no keys beside a role_arn", field="destination.access_key")
            return
        if not self.access_key:
            raise InvalidError("expected an access key id, or a role_arn", field="destination.access_key")
        if not self.secret_key or self.secret_key.reveal().split() != [self.secret_key.reveal()]:
            raise InvalidError("expected a secret access key, without spaces", field="destination.secret_key")
        checked_token(self.access_key, self.session_token, field="destination.session_token")

    @asynccontextmanager
    async def open(
        self, app_key: str, platform: Platform, *, limits: StoreLimits = FILE_LIMITS
    ) -> AsyncIterator[StoreDestination]:
        """Open the destination, without a request to the bucket. A role is assumed with the first request."""
        redactor.add(self.secret_key.reveal())
        redactor.add(self.session_token.reveal())
        config = S3StoreConfig(
            bucket=self.bucket,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            session_token=checked_token(self.access_key, self.session_token),
            endpoint_url=self.endpoint_url.rstrip("/") or None,
            sse=self.sse,
            sse_kms_key_id=self.sse_kms_key_id,
        )
        provider: CredentialProvider | None = None
        if isinstance(credentials := await self._credentials(app_key, platform), AwsRole):
            provider = platform.aws.credential_provider(credentials, region=self.region)
        async with config.open(platform.outgoing, limits, credential_provider=provider) as store:
            yield StoreDestination(store)

    async def checks(self, app_key: str, platform: Platform) -> tuple[Check, ...]:
        """The steps of Test Connection before an object is written."""
        inspection = S3Inspection(
            clients=platform.aws,
            credentials=await self._credentials(app_key, platform),
            bucket=self.bucket,
            region=self.region,
            folder=self.folder,
            endpoint_url=self.endpoint_url.rstrip("/") or None,
            at_aws=not self.endpoint_url or is_aws(self.endpoint_url, "s3"),
        )
        return inspection.checks()

    async def _credentials(self, app_key: str, platform: Platform) -> AwsCredentials | AwsRole:
        if self.role_arn:
            return AwsRole(role_arn=self.role_arn, external_id=await platform.external_id(app_key))
        return AwsCredentials(
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            session_token=checked_token(self.access_key, self.session_token),
        )
