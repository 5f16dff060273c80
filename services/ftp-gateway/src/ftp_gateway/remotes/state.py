"""
State of the pulls, kept in the bucket `REMOTES`: files that were pulled, failures, and the progress of each remote.
"""

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

FORGET_AFTER = timedelta(days=7)
"""Time for which a file is remembered after it was deleted on the server: some list an empty directory by mistake."""


class RemoteFile(Struct, frozen=True, kw_only=True):
    """A file in a directory of a remote. `modified_at` is as the server writes it, by its clock."""

    name: str
    size_bytes: int
    modified_at: str
    regular: bool = True

    @property
    def version(self) -> tuple[int, str]:
        """Size and time, which differ for other content in all likelihood."""
        return self.size_bytes, self.modified_at


class PulledFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A file that was pulled into the spool. Stored until no file on the server can be mistaken for it.

    `kind` and `closed_at` are those of its upload and identify its error report; `reported` says that no report is due.
    `missing_since` is the first poll that did not find it on the server.
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
    """Failure of a remote, and its start. `told_revision` is the revision of the configuration that was alerted."""

    code: str
    message: str
    since: datetime
    told_revision: int = 0


class PullProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Progress of the pulls. `looked_at` is the last poll, `pulled_at` the last file. `next_look_at` is the next poll by
    `revision` of the configuration.
    """

    looked_at: datetime | None = None
    pulled_at: datetime | None = None
    files_pulled: int = 0
    bytes_pulled: int = 0
    trouble: RemoteFailure | None = None
    next_look_at: datetime | None = None
    revision: int = 0
