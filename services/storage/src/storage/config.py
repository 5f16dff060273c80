"""
Configuration of storage: its part of the operator's settings, and the kinds of connectors it reads. No I/O.

Limits that no operator sets are constants beside the code that applies them.
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

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

LEAST_PX: Final = 16
MOST_PX: Final = 2048
"""Bounds of a thumbnail's longer side: below, nothing is recognizable; above, it is no thumbnail."""


class StorageConfig(Struct, frozen=True, kw_only=True):
    """The running service's settings."""

    objects_dir: Path
    """Objects of apps without an active connector."""
    names_dir: Path
    """File names of downloads of local objects."""
    uploads_dir: Path
    """Large uploads, until they are stored."""
    local: bool
    """Whether the local directory may hold objects."""
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


def storage_config(settings: Settings, *, public_url: str) -> StorageConfig:
    """This service's part of the settings. Raises `InvalidError` naming the variable."""
    data = Path(settings.data_dir)
    sides = tuple(int(side) for side in settings.storage_thumbnails_px.split(","))
    if not all(LEAST_PX <= side <= MOST_PX for side in sides) or len(set(sides)) < len(sides):
        raise InvalidError(
            f"expected different sizes from {LEAST_PX} to {MOST_PX}", field="MILLRACE_STORAGE_THUMBNAILS_PX"
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
