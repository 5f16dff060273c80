"""Folders of a bucket, the claims of exports to them, and when two claims clash. No I/O."""

from datetime import datetime

from msgspec import Struct

Owner = tuple[str, str]
"""The app and the id of an export."""


class Folder(Struct, frozen=True):
    """
    A folder of a bucket. `place` stands for the bucket, the same for every spelling of its endpoint. `path` has one
    slash between its parts and none at its ends; it is empty for the whole bucket. Neither holds a secret.
    """

    place: str
    path: str


class FolderClaim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An export's claim to a folder.

    `proven` tells that Test Connection has written there. A claim that nobody proved stands against the app's own
    exports alone: who only names a folder keeps no other app out. Until `pending_until` the export's configuration
    may not be stored yet.
    """

    app_key: str
    export_id: str
    path: str
    proven: bool = False
    pending_until: datetime | None = None

    @property
    def owner(self) -> Owner:
        """The export."""
        return self.app_key, self.export_id

    def is_pending(self, at: datetime) -> bool:
        """Return whether the configuration may still be on its way."""
        return self.pending_until is not None and at < self.pending_until

    def clashes_with(self, other: "FolderClaim") -> bool:
        """Return whether the two cannot both be, in one bucket."""
        counts = self.app_key == other.app_key or (self.proven and other.proven)
        return counts and self.owner != other.owner and overlap(self.path, other.path)


class BucketClaims(Struct, frozen=True, kw_only=True):
    """All claims in one bucket: an entry of `CLAIMS`."""

    claims: tuple[FolderClaim, ...] = ()


def overlap(one: str, other: str) -> bool:
    """Return whether two folders are the same or one is in the other: `a` and `a/b` are, `a` and `ab` are not."""
    if not one or not other:
        return True
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
