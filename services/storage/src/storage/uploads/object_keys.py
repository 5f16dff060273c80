"""Keys of objects and thumbnails, and the hash that stands for an object. Pure."""

import hashlib
from collections.abc import Sequence

from shared.contracts.messages import MediaKind
from storage.images.image import PIPELINE


def object_identity(sha256: str, content_disposition: str) -> str:
    """
    The hash that stands for an object: that of its content or, for a download with a name, of content and name.

    The name is part of what a URL serves. The same file under two names is two objects: a campaign never shows, and no
    deletion ends, what was uploaded under another name.
    """
    if "filename" not in content_disposition:
        return sha256
    return hashlib.sha256(f"{sha256}\n{content_disposition}".encode()).hexdigest()


def object_key(prefix: str, app_key: str, kind: MediaKind, identity: str, extension: str, *, variant: str = "") -> str:
    """`<prefix>/<app>/<kind>/<first two digits>/<half of the hash><variant>.<extension>`. No two tenants share one."""
    key = f"{app_key}/{kind}/{identity[:2]}/{identity[:32]}{variant}.{extension}"
    return f"{prefix}/{key}" if prefix else key


def thumbnail_variant(side_px: int, sides_px: Sequence[int]) -> str:
    """
    The part of a thumbnail's key before the extension.

    All thumbnails are made from one image, reduced for the largest of them. Another largest size gives other bytes, so
    the key of a smaller thumbnail holds that size too.
    """
    largest_px = max(sides_px)
    return f"_t{side_px}{PIPELINE}" if side_px == largest_px else f"_t{side_px}of{largest_px}{PIPELINE}"
