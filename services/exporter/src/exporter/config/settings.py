"""Settings of the exporter alone, and the store of the lake that they name."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exporter.pipeline.lane import Shards
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.objects.config import AzureStoreConfig, LocalStoreConfig, S3StoreConfig, StoreConfig
from shared.objects.encryption import Sse, check_sse
from shared.runtime.settings import Settings

LAKE_FOLDER: Final = "lake"


class ExporterSettings(Settings, frozen=True, kw_only=True):
    """Settings beyond those that every service has."""

    exporter_cluster: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}$(?!\n)")] = "millrace"
    """The name of this mesh in the names of files of events, as `prod-03` is."""
    exporter_zone: Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,32}$(?!\n)")] = ""
    """The zone in the names of files of events; the cluster where it is empty."""

    exporter_local_dir: str = ""
    """The directory below which exports with a `local` destination write; without it there are none."""

    exporter_lake: bool = True
    """Whether all events are written into the lake as well."""
    exporter_lake_shards: Annotated[int, Meta(ge=1, le=16)] = 1
    """Lanes that write each app's lake: 1, 2, 4, 8 or 16, the same for all replicas."""
    exporter_lake_keep_days: Annotated[float, Meta(ge=0, le=3650)] = 35.0
    """The age at which a day of the lake is removed; 0 keeps all."""
    exporter_lake_dir: str = ""
    """The lake where neither a bucket nor a container has it; `lake` in `data_dir` where it is empty."""
    exporter_lake_bucket: str = ""
    """A bucket of S3, which all replicas reach."""
    exporter_lake_region: str = "us-east-1"
    exporter_lake_endpoint_url: str = ""
    """Of a store that speaks S3, or of an account of Azure; the cloud's own where it is empty."""
    exporter_lake_access_key_id: str = ""
    exporter_lake_secret_access_key: str = ""
    """Secret; use `MILLRACE_EXPORTER_LAKE_SECRET_ACCESS_KEY_FILE`."""
    exporter_lake_sse: Sse = "off"
    """The encryption on the server that the bucket is asked for with each file."""
    exporter_lake_sse_kms_key_id: str = ""
    """The key of `aws:kms`: its ARN, its id or `alias/<name>`."""
    exporter_lake_container: str = ""
    """A container of Azure Blob Storage, which all replicas reach."""
    exporter_lake_account_name: str = ""
    exporter_lake_account_key: str = ""
    """Secret; use `MILLRACE_EXPORTER_LAKE_ACCOUNT_KEY_FILE`."""

    @property
    def lake_shards(self) -> Shards:
        """
        The lanes of each lake.

        Raises:
            InvalidError: There can be no such number of them.
        """
        try:
            shards: Shards = msgspec.convert(self.exporter_lake_shards, Shards)
        except msgspec.ValidationError:
            raise InvalidError(
                f"expected 1, 2, 4, 8 or 16, found {self.exporter_lake_shards}", field="exporter_lake_shards"
            ) from None
        return shards

    @property
    def lake_store(self) -> StoreConfig:
        """
        The store of the lake.

        Raises:
            InvalidError: A bucket and a container are named, and only one can have it; or the key of KMS is wrong.
        """
        endpoint_url = self.exporter_lake_endpoint_url or None
        if self.exporter_lake_bucket and self.exporter_lake_container:
            raise InvalidError("expected a bucket or a container, found both", field="exporter_lake_container")
        if self.exporter_lake_bucket:
            field = "MILLRACE_EXPORTER_LAKE_SSE_KMS_KEY_ID"
            check_sse(self.exporter_lake_sse, self.exporter_lake_sse_kms_key_id, field=field)
            return S3StoreConfig(
                bucket=self.exporter_lake_bucket,
                region=self.exporter_lake_region,
                access_key_id=self.exporter_lake_access_key_id,
                secret_access_key=Secret(self.exporter_lake_secret_access_key),
                endpoint_url=endpoint_url,
                prefix=LAKE_FOLDER,
                sse=self.exporter_lake_sse,
                sse_kms_key_id=self.exporter_lake_sse_kms_key_id,
            )
        if self.exporter_lake_container:
            return AzureStoreConfig(
                account_name=self.exporter_lake_account_name,
                account_key=Secret(self.exporter_lake_account_key),
                container=self.exporter_lake_container,
                endpoint=endpoint_url,
                prefix=LAKE_FOLDER,
            )
        return LocalStoreConfig(root=self.exporter_lake_dir or str(Path(self.data_dir) / LAKE_FOLDER))

    @property
    def lake_location(self) -> str:
        """The store of the lake in words, without secrets."""
        if self.exporter_lake_bucket:
            return f"{self.exporter_lake_endpoint_url or 's3'} {self.exporter_lake_bucket}"
        if self.exporter_lake_container:
            account = self.exporter_lake_endpoint_url or self.exporter_lake_account_name
            return f"{account} {self.exporter_lake_container}"
        return self.exporter_lake_dir or "local"
