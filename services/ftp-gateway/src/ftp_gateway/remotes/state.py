"""
State of the pulls, kept in the bucket `REMOTES`: files that were pulled, failures, and the progress of each remote.
"""

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

FORGET_AFTER = timedelta(days=7)
"""How long a file that is gone from the server is remembered. Listings have been seen to be empty by mistake."""


class RemoteFile(Struct, frozen=True, kw_only=True):
    """A file in a directory of a remote, as the server tells it. `modified_at` is in its own clock and grain."""

    name: str
    size_bytes: int
    modified_at: str
    regular: bool = True

    @property
    def version(self) -> tuple[int, str]:
        """What another content most likely changes."""
        return self.size_bytes, self.modified_at


class PulledFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A file that is ours: it lies in our spool, or did. Kept until nothing on the server can be mistaken for it.

    `kind` and `closed_at`, that of the upload it became, are what its report is known by; `reported` says that none is
    due.
    `missing_since` is when it was first not to be seen on the server.
    """

    name: str
    size_bytes: int
    modified_at: str
    kind: Literal["push", "profile"]
    closed_at: datetime
    reported: bool = True
    missing_since: datetime | None = None

    @property
    def version(self) -> tuple[int, str]:
        return self.size_bytes, self.modified_at


class RemoteFailure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a remote fails, and since when. `told_revision` is that of the configuration an operator heard of it for."""

    code: str
    message: str
    since: datetime
    told_revision: int = 0


class PullProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What is known of a remote. `pulled_at` is when it last gave a file, `next_look_at` when it is looked at again by
    `revision` of its configuration.
    """

    looked_at: datetime | None = None
    pulled_at: datetime | None = None
    files_pulled: int = 0
    bytes_pulled: int = 0
    trouble: RemoteFailure | None = None
    next_look_at: datetime | None = None
    revision: int = 0


def _parts(directory: str) -> list[str]:
    return [part for part in directory.split("/") if part not in {"", "."}]
