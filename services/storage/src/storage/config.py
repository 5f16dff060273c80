"""
Configuration of storage: its part of the operator's settings, and the kinds of connectors it reads. No I/O.

Limits that no operator sets are constants beside the code that applies them.
"""

from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from shared.config.registry import Kind
from shared.errors import InvalidError
from shared.runtime.settings import Settings
from storage.providers.amazon import NAME as AMAZON
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.azure import NAME as AZURE
from storage.providers.azure import AzureStorageConfig
from storage.uploads.upload import UploadLimits

AMAZON_STORAGE: Kind[AmazonStorageConfig] = Kind(prefix="connectors", type=AmazonStorageConfig, fixed_id=AMAZON)
AZURE_STORAGE: Kind[AzureStorageConfig] = Kind(prefix="connectors", type=AzureStorageConfig, fixed_id=AZURE)

MIN_PX: Final = 16
MAX_PX: Final = 2048
"""Bounds of a thumbnail's longer side: below, nothing is recognizable; above, it is no thumbnail."""


class StorageSettings(Settings, frozen=True, kw_only=True):
    """Settings of storage; those that it alone reads stand here."""

    storage_message_image_bytes: Annotated[int, Meta(ge=1)] = 10 << 20
    storage_widget_image_bytes: Annotated[int, Meta(ge=1)] = 10 << 20
    storage_attachment_bytes: Annotated[int, Meta(ge=1)] = 25 << 20
    storage_file_bytes: Annotated[int, Meta(ge=1)] = 5 << 20
    """The largest upload of each kind."""
    storage_widget_bytes: Annotated[int, Meta(ge=1)] = 20 << 20
    storage_widget_images: Annotated[int, Meta(ge=1)] = 200
    """The largest page of a widget, and the most images in it."""
    storage_thumbnails_px: Annotated[str, Meta(pattern=r"^[1-9][0-9]{1,3}(,[1-9][0-9]{1,3}){0,7}$")] = "320"
    """The longer sides of the thumbnails that are made, separated by commas; the first is the one that is shown."""
    storage_avif: bool = False
    """Take AVIF as an image too. Decoding it blocks the process (python-pillow/Pillow#9930)."""
    storage_memory_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 << 20
    """Memory for uploads that are coming in; those that do not fit go to the disk."""
    storage_local: bool = True
    """Objects may lie in the data folder where no connector takes them; then all replicas need the same one."""


class StorageConfig(Struct, frozen=True, kw_only=True):
    """The running service's settings."""

    objects_dir: Path
    """Objects of apps without an active connector."""
    names_dir: Path
    """File names of downloads of local objects."""
    uploads_dir: Path
    """Large uploads, until they are stored."""
    local: bool
    """True when the local directory may hold objects."""
    public_url: str
    """The beginning of the URLs of local objects."""
    memory_bytes: int
    """The memory for all incoming uploads."""
    limits: UploadLimits
    widget_bytes: int
    widget_images: int
    """The largest HTML page of a widget, and the most images in it."""
    allow_private_endpoints: bool
    sts_endpoint_url: str | None


def storage_config(settings: StorageSettings, *, public_url: str) -> StorageConfig:
    """This service's part of the settings. Raises `InvalidError` naming the variable."""
    data = Path(settings.data_dir)
    sides = tuple(int(side) for side in settings.storage_thumbnails_px.split(","))
    if not all(MIN_PX <= side <= MAX_PX for side in sides) or len(set(sides)) < len(sides):
        raise InvalidError(
            f"expected different sizes from {MIN_PX} to {MAX_PX}", field="MILLRACE_STORAGE_THUMBNAILS_PX"
        )
    return StorageConfig(
        objects_dir=data / "objects",
        names_dir=data / "names",
        uploads_dir=data / "uploads",
        local=settings.storage_local,
        public_url=public_url.rstrip("/"),
        memory_bytes=settings.storage_memory_bytes,
        limits=UploadLimits(
            max_bytes={
                "message-image": settings.storage_message_image_bytes,
                "widget-image": settings.storage_widget_image_bytes,
                "attachment": settings.storage_attachment_bytes,
                "file": settings.storage_file_bytes,
            },
            thumbnails_px=sides,
            avif=settings.storage_avif,
        ),
        widget_bytes=settings.storage_widget_bytes,
        widget_images=settings.storage_widget_images,
        allow_private_endpoints=settings.allow_private_endpoints,
        sts_endpoint_url=settings.sts_endpoint_url or None,
    )
