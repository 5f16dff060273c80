"""
What this service is told: its part of the operator's settings, and the kinds of configuration it reads. No I/O.

Limits that no operator sets are constants beside the code that obeys them: in `uploads`, `images`, `image_work` and
`data_uris`.
"""

from pathlib import Path

from msgspec import Struct

from shared.registry import Kind
from shared.settings import Settings
from storage.providers.amazon import NAME, AmazonStorageConfig

AMAZON_STORAGE: Kind[AmazonStorageConfig] = Kind(prefix="connectors", type=AmazonStorageConfig, fixed_id=NAME)


class StorageConfig(Struct, frozen=True, kw_only=True):
    """The running service's settings."""

    objects_dir: Path
    """Where objects of apps without an active connector lie."""
    names_dir: Path
    """Where the names of local downloads lie."""
    public_url: str
    """What their URLs begin with."""
    allow_private_endpoints: bool


def storage_config(settings: Settings, *, public_url: str) -> StorageConfig:
    """This service's part of the settings."""
    return StorageConfig(
        objects_dir=Path(settings.data_dir) / "objects",
        names_dir=Path(settings.data_dir) / "names",
        public_url=public_url.rstrip("/"),
        allow_private_endpoints=settings.allow_private_endpoints,
    )
