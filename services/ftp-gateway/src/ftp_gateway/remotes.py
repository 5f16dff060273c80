"""
A customer's own server as a source of files: what it is in the configuration, and which of its files are taken. No I/O.
"""

import fnmatch
import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from ftp_gateway.cron import check_schedule, following
from ftp_gateway.paths import Folder, Place, kind_of, locate
from shared.errors import ConflictError, DeniedError, InvalidError, MillraceError
from shared.private_addresses import is_private
from shared.registry import Kind
from shared.secret_store import Secret

Protocol = Literal["sftp", "ftps"]
Pattern = Annotated[str, Meta(min_length=1, max_length=200)]
Directory = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
PASSING = timedelta(minutes=15)
"""How long a failure that may pass by itself is nobody's business."""
LONGEST_WAIT_S = 1800.0
"""Between two looks at a server that fails."""
AGAIN_S = 60.0
"""How soon at most to look again where the last look failed, or left something that is about to be there."""
FORGET_AFTER = timedelta(days=7)
"""How long a file that is gone from the server is remembered. Listings have been seen to be empty by mistake."""

PORTS: dict[tuple[Protocol, str], int] = {("sftp", "explicit"): 22, ("ftps", "explicit"): 21, ("ftps", "implicit"): 990}


class Remote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A server that is looked at every `frequency` minutes, and whose files become files of the app.

    `frequency_s`, in seconds, goes before `frequency`, and `schedule` before both: the five fields of cron, in
    `timezone`. `push` and `profiles` are the patterns of the names that are
    taken as push and as profile files. A file is taken when its size and time have not changed for `settle_s`. What is
    taken is then left, deleted, or moved to `archive_path`. Reports go to `report_path` where that is given.

    SFTP: `host_key` is the server's public key, without which nobody signs in; left out, the one of before stays while
    the server is the same. FTPS: `ca_certificates` are trusted in place of the usual authorities, and
    `certificate_sha256` in place of any. `max_tls` helps with servers that resume no session of TLS 1.3.
    """

    protocol: Protocol
    host: Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$(?!\n)")]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    username: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
    password: Secret | None = None
    private_key: Secret | None = None
    passphrase: Secret | None = None
    host_key: Annotated[str, Meta(max_length=4096)] | None = None
    tls: Literal["explicit", "implicit"] = "explicit"
    max_tls: Literal["1.2", "1.3"] = "1.3"
    ca_certificates: Annotated[str, Meta(max_length=256 * 1024)] | None = None
    certificate_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")] | None = None
    path: Annotated[Directory, Meta(min_length=1)] = "."
    push: Annotated[tuple[Pattern, ...], Meta(max_length=32)] = ("*.csv",)
    profiles: Annotated[tuple[Pattern, ...], Meta(max_length=32)] = ()
    frequency: Annotated[int, Meta(ge=1, le=1440)] = 1
    frequency_s: Annotated[float, Meta(ge=1, le=86400)] | None = None
    schedule: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    timezone: Annotated[str, Meta(max_length=64)] = "UTC"
    settle_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    after: Literal["leave", "delete", "archive"] = "leave"
    archive_path: Directory = ""
    report_path: Directory = ""
    active: bool = True

    @property
    def at(self) -> tuple[str, int]:
        """Host and port."""
        tls = "explicit" if self.protocol == "sftp" else self.tls
        return self.host, self.port or PORTS[self.protocol, tls]

    @property
    def every_s(self) -> float:
        """Seconds between two looks."""
        return self.frequency_s or self.frequency * 60.0

    def check(self, *, allow_private: bool) -> None:
        """What the types do not say. Raises `InvalidError`."""
        if not allow_private and is_private(self.host):
            raise InvalidError("expected a host that is reachable from the internet", field="host")
        if not self.push and not self.profiles:
            raise InvalidError("expected a pattern of push files, of profile files, or both", field="push")
        if self.protocol == "ftps":
            self._check_unused("private_key", "passphrase", "host_key")
            if not self.password:
                raise InvalidError("expected a password", field="password")
        else:
            self._check_unused("ca_certificates", "certificate_sha256")
            if not self.password and not self.private_key:
                raise InvalidError("expected a password, a private key, or both", field="password")
        if self.after == "archive" and not self.archive_path:
            raise InvalidError("expected the directory to which taken files are moved", field="archive_path")
        self._check_schedule()
        for field in ("archive_path", "report_path"):
            if (given := getattr(self, field)) and _parts(given) == _parts(self.path):
                raise InvalidError("expected another directory than `path`", field=field)

    def _check_schedule(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, KeyError):
            raise InvalidError("expected an IANA timezone such as Europe/Istanbul", field="timezone") from None
        if self.schedule is not None:
            try:
                check_schedule(self.schedule)
            except InvalidError as error:
                raise InvalidError(error.message, field="schedule") from None

    def _check_unused(self, *fields: str) -> None:
        for field in fields:
            if getattr(self, field):
                raise InvalidError(f"is of no use with {self.protocol}", field=field)


REMOTES = Kind(prefix="remotes", type=Remote)


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


class HostKey(Struct, frozen=True, kw_only=True):
    """A server's key: the public key as a line of `known_hosts` has it, and its SHA-256 fingerprint as people do."""

    public_key: str
    fingerprint: str


class Taken(Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class Trouble(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a remote fails, and since when. `told_revision` is that of the configuration an operator heard of it for."""

    code: str
    message: str
    since: datetime
    told_revision: int = 0


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What is known of a remote. `pulled_at` is when it last gave a file, `next_look_at` when it is looked at again by
    `revision` of its configuration.
    """

    looked_at: datetime | None = None
    pulled_at: datetime | None = None
    files_pulled: int = 0
    bytes_pulled: int = 0
    trouble: Trouble | None = None
    next_look_at: datetime | None = None
    revision: int = 0


def failed(trouble: Trouble | None, error: MillraceError, now: datetime, revision: int) -> tuple[Trouble, bool]:
    """
    The trouble that a remote is in after a failure, and whether an operator has to hear of it now: once for each
    configuration; at once where nothing but a person can help, else when it lasts.
    """
    since = trouble.since if trouble else now
    told = trouble.told_revision if trouble else 0
    tell = told != revision and (not _may_pass(error) or now - since >= PASSING)
    return Trouble(code=error.code, message=error.message, since=since, told_revision=revision if tell else told), tell


def _may_pass(error: MillraceError) -> bool:
    return error.retryable or isinstance(error, ConflictError)


def first_look(remote: Remote, revision: int, progress: Progress, now: datetime) -> datetime:
    """
    When a replica looks that begins with a remote. By a schedule it goes on where the one before has stopped, so what
    was due while nobody was there is done once; a new schedule begins now. Otherwise, and after a failure, at once.
    """
    if remote.schedule is None or progress.trouble is not None:
        return now
    if progress.revision == revision and progress.next_look_at is not None:
        return progress.next_look_at
    return next_look(remote, now)


def next_look(remote: Remote, now: datetime, *, failures: int = 0, unfinished: bool = False) -> datetime:
    """When to look again, after so many failures in a row, or after a look that has left something for soon."""
    again_s = AGAIN_S if remote.schedule is not None else min(AGAIN_S, remote.every_s)
    if failures:
        return now + timedelta(seconds=min(again_s * 2.0 ** min(failures, 16), LONGEST_WAIT_S))
    regular = now + timedelta(seconds=remote.every_s)
    if remote.schedule is not None:
        regular = following(remote.schedule, now, ZoneInfo(remote.timezone))
    return min(regular, now + timedelta(seconds=max(again_s, remote.settle_s))) if unfinished else regular


class UnknownHostError(DeniedError):
    """
    The server is not known, or not the one that was accepted; it got no password. `offered` is the host key that it
    showed.
    """

    def __init__(self, message: str, offered: HostKey | None = None) -> None:
        super().__init__(message)
        self.offered = offered


def place_of(remote: Remote, app_key: str, name: str) -> Place | None:
    """
    Where a file of this name goes, or None for one that is not taken: the name fits no pattern, is one of those under
    which files are uploaded, or is none that an upload could have.
    """
    folders: tuple[tuple[Folder, tuple[str, ...]], ...] = (("Profile", remote.profiles), ("", remote.push))
    if "/" in name:
        return None
    try:
        locate(name.encode())
    except (MillraceError, UnicodeEncodeError):
        return None
    for folder, patterns in folders:
        place = Place(app_key, folder, name)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and kind_of(place) is not None:
            return place
    return None


def in_directory(directory: str, name: str) -> str:
    """The path of a file on the server."""
    return f"{directory.rstrip('/')}/{name}"


def archive_name(name: str, now: datetime) -> str:
    """A name that no earlier file of this name has in the archive."""
    return f"{now:%Y%m%dT%H%M%S.%fZ}-{name}"


def download_name(remote_id: str, name: str) -> str:
    """The temporary name in our own tree under which a file is pulled."""
    return f".pull-{hashlib.sha256(f'{remote_id}/{name}'.encode()).hexdigest()[:32]}"


def offered_key(app_key: str, remote_id: str) -> str:
    """The key in `REMOTES` of the `HostKey` that the server showed and that was not accepted."""
    return f"{app_key}.{remote_id}.offered"


def taken_key(app_key: str, remote_id: str, name: str) -> str:
    """The key of a `Taken` in `REMOTES`."""
    return f"{app_key}.{remote_id}.taken.{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def progress_key(app_key: str, remote_id: str) -> str:
    """The key of a `Progress` in `REMOTES`."""
    return f"{app_key}.{remote_id}.progress"


def _parts(directory: str) -> list[str]:
    return [part for part in directory.split("/") if part not in {"", "."}]
