"""
Configuration of a remote, a customer's own server, and the choice of the files to pull. No I/O.
"""

import fnmatch
import hashlib
from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from ftp_gateway.model.virtual_paths import Folder, Place, kind_of, locate
from ftp_gateway.remotes.cron import check_schedule
from shared.config.registry import Kind
from shared.config.secret import Secret
from shared.errors import DeniedError, InvalidError, MillraceError
from shared.outgoing.urls import check_host

Protocol = Literal["sftp", "ftps"]
Pattern = Annotated[str, Meta(min_length=1, max_length=200)]
Directory = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]

PORTS: dict[tuple[Protocol, str], int] = {("sftp", "explicit"): 22, ("ftps", "explicit"): 21, ("ftps", "implicit"): 990}


class Remote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A server that is polled every `frequency` minutes, and whose files become files of the app.

    `frequency_s`, in seconds, goes before `frequency`, and `schedule` before both: the five fields of cron, in
    `timezone`. `push` and `profiles` are the patterns of the names of push and of profile files. A file is pulled when
    its size and time have not changed for `settle_s`. It is then left, deleted, or moved to `archive_path`. Error
    reports go to `report_path` where that is given.

    SFTP: `host_key` is the server's public key, without which we do not sign in; left out, the accepted one stays while
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
        """Seconds between two polls."""
        return self.frequency_s or self.frequency * 60.0

    def check(self, *, allow_private: bool) -> None:
        """Check what the types cannot. Raises `InvalidError`."""
        check_host(self.host, "host", allow_private=allow_private)
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
            if (directory := getattr(self, field)) and _parts(directory) == _parts(self.path):
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


class OfferedHostKey(Struct, frozen=True, kw_only=True):
    """A server's key: the public key as in a line of `known_hosts`, and its SHA-256 fingerprint for people."""

    public_key: str
    fingerprint: str


class UnknownHostError(DeniedError):
    """
    The server is not known, or not the accepted one; it got no password. `offered` is the host key that it showed.
    """

    def __init__(self, message: str, offered: OfferedHostKey | None = None) -> None:
        super().__init__(message)
        self.offered = offered


def place_of(remote: Remote, app_key: str, name: str) -> Place | None:
    """
    Return the place of a file of this name in the spool. None for a file that is not pulled: the name fits no pattern,
    is a temporary name of uploads, or is not allowed for an upload.
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
    """Return the path of a file on the server."""
    return f"{directory.rstrip('/')}/{name}"


def archive_name(name: str, now: datetime) -> str:
    """Return a name that no earlier file of this name has in the archive."""
    return f"{now:%Y%m%dT%H%M%S.%fZ}-{name}"


def download_name(remote_id: str, name: str) -> str:
    """Return the temporary name in our own spool under which a file is pulled."""
    return f".pull-{hashlib.sha256(f'{remote_id}/{name}'.encode()).hexdigest()[:32]}"


def _parts(directory: str) -> list[str]:
    return [part for part in directory.split("/") if part not in {"", "."}]
