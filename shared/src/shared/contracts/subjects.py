"""
Subjects and durable consumers of the mesh, built and parsed side by side. No other file spells one.

Streams and buckets are in `shared.contracts.streams`, keys of buckets in `shared.contracts.keys`, JetStream's own
subjects in `shared.contracts.jetstream`, permissions in `shared.contracts.grants`.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Literal

from shared.errors import InvalidError

PARTITIONS = 16
"""Partitions of `EVENTS`. Fixed for a stream's life, because another number moves users and breaks their order."""

APP_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NO_APP = "-"
"""Stands for no tenant in subjects of alerts and dead letters. An app of this name is read and deleted, not made."""

STORE_MEDIA = "storage.media.store"
RESOLVE_MEDIA = "storage.media.resolve"

FileState = Literal["received", "partial", "completed", "failed", "duplicate"]


def check_app_key(app_key: str) -> str:
    """Return the key, or raise `InvalidError` for `app_key`."""
    if not APP_KEY.fullmatch(app_key):
        raise InvalidError("expected 1 to 64 letters, digits, '_' or '-'", field="app_key")
    return app_key


def check_new_app_key(app_key: str) -> str:
    """Return the key of an app that is to be configured, or raise `InvalidError` for `app_key`."""
    if app_key == NO_APP:
        raise InvalidError(f"expected another key: {NO_APP!r} stands for no app", field="app_key")
    return check_app_key(app_key)


def check_name(name: str, field: str) -> str:
    """Return an identifier that becomes one token of a key or subject, or raise `InvalidError` for `field`."""
    if not NAME.fullmatch(name):
        raise InvalidError("expected 1 to 64 letters, digits, '_' or '-'", field=field)
    return name


MAX_BYTES = 2048
"""Longest subject. The server takes 4,096 bytes in a line with reply subject and lengths, and closes for more."""


def check_subjects(subjects: Sequence[str], *, wildcards: bool = False) -> None:
    """
    Check subjects, or filters, before they reach the wire.

    Raises:
        InvalidError: One is too long, has an empty token, or holds a blank, a control character or a wildcard.
    """
    # A merge of profiles publishes by the thousand, so all are looked at together first.
    if _is_sound(".".join(subjects), max(map(len, subjects)), wildcards=wildcards):
        return
    for subject in subjects:
        if not _is_sound(subject, len(subject), wildcards=wildcards):
            raise InvalidError(
                f"expected at most {MAX_BYTES} bytes, and tokens without blanks, control characters and wildcards; "
                f"found {subject[:80]!r} of {len(subject)} characters",
                field="subject",
            )


def _is_sound(joined: str, longest: int, *, wildcards: bool) -> bool:
    return (
        joined.isprintable()
        and " " not in joined
        and ".." not in f".{joined}."
        and (wildcards or ("*" not in joined and ">" not in joined))
        and longest <= (MAX_BYTES if joined.isascii() else MAX_BYTES // 4)
    )


def partition_of(user_id: str) -> int:
    """The partition of a user: CRC-32 of the UTF-8 bytes, modulo `PARTITIONS`."""
    return zlib.crc32(user_id.encode()) % PARTITIONS


def events(app_key: str, partition: int) -> str:
    """Events of one app in one partition."""
    return f"events.{app_key}.{partition}"


def app_of_events(subject: str) -> str:
    """The app of a subject of events."""
    return subject.split(".", 2)[1]


def partition_of_events(subject: str) -> int | None:
    """The partition in a subject of events; None where its last token is no number."""
    partition = subject.rpartition(".")[2]
    return int(partition) if partition.isdecimal() else None


def events_of_app(app_key: str) -> str:
    """All partitions of one app: a filter."""
    return f"events.{app_key}.*"


def events_of_partition(partition: int) -> str:
    """One partition over all apps: a filter."""
    return f"events.*.{partition}"


EVERY_EVENT = events_of_app("*")
"""All partitions of all apps: a filter. `EVENTS` takes no other subjects than its sixteen partitions."""


def push_send(app_key: str, file_id: str) -> str:
    """Push commands of one file."""
    return f"push.send.{app_key}.{file_id}"


def profile_update(app_key: str, file_id: str) -> str:
    """Profile updates of one file."""
    return f"profile.update.{app_key}.{file_id}"


def parse_profile_update(subject: str) -> tuple[str, str]:
    """The app and the file of a subject of profile updates."""
    _, _, app_key, file_id = subject.split(".")
    return app_key, file_id


def ftp_file(app_key: str, state: FileState) -> str:
    """Changes of state of an uploaded file."""
    return f"ftp.file.{app_key}.{state}"


def object_stored(app_key: str) -> str:
    """A stored object."""
    return f"storage.object.{app_key}.stored"


def dead_letter(service: str, app_key: str, owner_id: str, reason: str) -> str:
    """
    A record that cannot be delivered; `owner_id` is the hook, file or export it belongs to.

    The app may be what a publisher has put into a subject. One that no app can have is `-`.
    """
    return f"dlq.{service}.{app_key if APP_KEY.fullmatch(app_key) else NO_APP}.{owner_id}.{reason}"


def dead_letters_of(service: str) -> str:
    """All dead letters of a service: a filter."""
    return f"dlq.{service}.*.*.*"


def parse_dead_letter(subject: str) -> tuple[str, str, str, str]:
    """The service, app, owner and reason in a dead letter's subject."""
    _, service, app_key, owner_id, reason = subject.split(".")
    return service, app_key, owner_id, reason


def alert(service: str, app_key: str, kind: str) -> str:
    """Something an operator has to know; `app_key` is `-` where no tenant is concerned."""
    return f"alerts.{service}.{app_key}.{kind}"


def parse_alert(subject: str) -> tuple[str, str, str]:
    """The service, app and kind in an alert's subject."""
    _, service, app_key, kind = subject.split(".")
    return service, app_key, kind


def connector_test(service: str) -> str:
    """Test Connection as a request."""
    return f"{service}.connector.test"


def hooks_consumer(partition: int) -> str:
    """The durable consumer that reads one partition for the hooks service."""
    return f"hooks-p{partition:02d}"


PROFILES_CONSUMER = "ftp-gateway-profiles"
PUSH_ENGINE_CONSUMER = "push-engine"
