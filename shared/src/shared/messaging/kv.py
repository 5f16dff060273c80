"""
Bytes in a key-value bucket (NATS ADR-8): read, write with a check of the revision, delete, list.

`shared.config.registry` (configuration), `shared.profiles.store` and the services know the meaning of the bytes.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from msgspec import Struct

from shared.contracts.streams import READ_IN_PARTS, Bucket
from shared.contracts.subjects import check_subjects
from shared.errors import ConflictError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message, OutgoingMessage
from shared.messaging.pull import Pull
from shared.messaging.streams import subjects_in

T = TypeVar("T")

OPERATION = "KV-Operation"
"""Headers of a message before which the server removes every earlier one of its subject."""
MARKER = "Nats-Marker-Reason"
"""Set by the server in place of the operation when an entry's time was over (server 2.11+)."""

_DELETION: Final = {OPERATION: "DEL"}

SILENT_S: Final = 1.0
"""Silence after which the server is asked whether more messages are to come."""

PAGE_BYTES: Final = 4 << 20
"""The most that `newest` returns; one entry may be larger."""
FIRST_RANGE: Final = 256
"""Revisions that `newest` reads first. What it reads back grows by `RANGE_FACTOR` at most."""
RANGE_FACTOR: Final = 4


class KeyValue(Struct, frozen=True):
    """The value of a key. `revision` is the stream sequence that wrote it, `headers` are those of its message."""

    key: str
    data: bytes
    revision: int
    headers: Mapping[str, str] = {}


def is_deletion(headers: Mapping[str, str]) -> bool:
    """Return whether a message of a bucket's stream marks its key as deleted."""
    return headers.get(OPERATION) in {"DEL", "PURGE"} or MARKER in headers


async def read_present(bus: Bus, bucket: Bucket, subject: str, scan: Pull) -> AsyncGenerator[Message, None]:
    """
    Yield the entries of a bucket under a subject, and perhaps some that came a moment later. `scan` reads the last
    message of each such subject, and goes on with later ones.

    The iteration ends with the last of the subjects that were there at its beginning. The server's count of waiting
    messages does not show the end (2.14). While an entry is written anew, the count is one too small for a moment. It
    may also stay one too large.

    Raises:
        UnavailableError: NATS does not say which subjects there are.
    """
    missing = set(await subjects_in(bus, bucket, subject))
    while missing:
        messages = await scan.next(1024, within_s=SILENT_S)
        for message in messages:
            missing.discard(message.subject)
            yield message
        if not messages:
            # An entry that was removed without a marker does not come.
            missing &= (await subjects_in(bus, bucket, subject)).keys()


class BucketEntry(Struct, frozen=True):
    """
    The value of a key, or the one to write after `revision`. A deleted key has a revision and no data; a key that never
    existed has revision 0.
    """

    key: str
    data: bytes | None
    revision: int


class KeyValueStore:
    """
    One bucket. Every method raises `UnavailableError` when NATS does not answer, and `InvalidError` for a key that may
    not reach the wire (`shared.contracts.subjects.check_subjects`).
    """

    def __init__(self, bus: Bus, bucket: Bucket) -> None:
        self._bus = bus
        self._bucket = bucket
        self._prefix = bucket.prefix

    async def get(self, key: str) -> KeyValue | None:
        """The value of `key`, or None."""
        message = await self._newest(self._prefix + key)
        if message is None or is_deletion(message.headers):
            return None
        return self.stored(message)

    def decoded(self, key: str, data: bytes | None, kind: type[T]) -> T | None:
        """
        A value as a message of this type. None where there is no value, and for one that is no such message.

        What cannot be read is logged, counted, and taken for nothing (`Bus.decoded`).
        """
        return None if data is None else self._bus.decoded(self._bucket, key, data, kind)

    async def entry(self, key: str) -> BucketEntry:
        """The value of `key`, with the revision of its deletion, or 0, where it has none."""
        message = await self._newest(self._prefix + key)
        if message is None:
            return BucketEntry(key, None, 0)
        return BucketEntry(key, None if is_deletion(message.headers) else message.data, message.sequence)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        expect_revision: int | None = None,
        over_deleted: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """
        Write, and return the new revision.

        Args:
            expect_revision: The revision that was read; 0 when there must be nothing.
            over_deleted: Takes a deleted key for nothing, where nothing is expected.

        Raises:
            ConflictError: The key has changed since.
        """
        subject = self._prefix + key
        try:
            published = await self._bus.publish(subject, data, headers=headers, expect_last_sequence=expect_revision)
        except ConflictError:
            if expect_revision != 0 or not over_deleted:
                raise
            # A deleted key still has its marker, whose sequence stands for "nothing".
            marker = await self._newest(subject)
            if marker is None or not is_deletion(marker.headers):
                raise
            published = await self._bus.publish(subject, data, headers=headers, expect_last_sequence=marker.sequence)
        return published.sequence

    async def get_many(self, keys: Sequence[str]) -> dict[str, BucketEntry]:
        """The values of at most 1,000 keys. A key that never existed is absent, a deleted one has no data."""
        prefix = self._prefix
        wanted = [prefix + key for key in keys]
        check_subjects(wanted)
        messages = await self._bus.last_messages(self._bucket, wanted)
        return {
            (key := message.subject.removeprefix(prefix)): BucketEntry(
                key, None if is_deletion(message.headers) else message.data, message.sequence
            )
            for message in messages
        }

    async def put_many(self, entries: Iterable[BucketEntry]) -> None:
        """
        Write at most 1,000 entries, all or none. The `revision` of each is the one that was read; one without data is
        deleted.

        Raises:
            ConflictError: One of the keys has changed since.
        """
        await self._bus.publish_together(
            [
                OutgoingMessage(
                    self._prefix + entry.key,
                    entry.data or b"",
                    headers=_DELETION if entry.data is None else {},
                    expect_last_sequence=entry.revision,
                )
                for entry in entries
            ]
        )

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None:
        """Leave a marker in place of the value. Deleting what is not there is no error."""
        await self._bus.publish(self._prefix + key, b"", headers=_DELETION, expect_last_sequence=expect_revision)

    async def scan(self, keys: str = ">") -> list[KeyValue]:
        """
        Every entry whose key matches the filter (`*` one token, `>` the rest), oldest revision first. An entry that
        changes meanwhile is as it was before or after.
        """
        found: dict[str, KeyValue] = {}
        subject = self._prefix + keys
        async with open_scan(self._bus, self._bucket, subject=subject, last_per_subject=True) as scan:
            async for message in read_present(self._bus, self._bucket, subject, scan):
                stored = self.stored(message)
                found.pop(stored.key, None)
                if not is_deletion(message.headers):
                    found[stored.key] = stored
        return list(found.values())

    async def page(self, keys: str, *, after: int, most: int) -> list[KeyValue]:
        """
        Up to `most` entries whose key matches and that were written after revision `after`, oldest first.

        Reads no more than it returns, which needs a bucket without history: each key is in it once.
        """
        found: list[KeyValue] = []
        async with open_scan(
            self._bus, self._bucket, subject=self._prefix + keys, start_sequence=after + 1, capacity=most
        ) as scan:
            waiting = scan.pending_at_open > 0
            while waiting and len(found) < most:
                messages = await scan.next(most, within_s=SILENT_S)
                for message in messages:
                    after = message.sequence
                    if not is_deletion(message.headers):
                        found.append(self.stored(message))
                    waiting = waiting and message.pending > 0
                if not messages:
                    # The server's count may be too large (see `read_present`). It counts anew for a new scan.
                    return found + await self.page(keys, after=after, most=most - len(found))
        return found[:most]

    async def newest(self, keys: str, *, before: int | None = None, most: int) -> list[KeyValue]:
        """
        Up to `most` entries whose key matches and that were written before revision `before`, the newest first; fewer
        where they have `PAGE_BYTES`. Needs a bucket without history.

        A stream is read in one direction only. So it is read in ranges of revisions that go back, each as long as the
        one before lets expect to be enough. The requests grow with the logarithm of the entries of other keys.
        """
        found: list[KeyValue] = []
        size = 0
        end = before or (await self._bus.stream_state(self._bucket)).last_sequence + 1
        length = max(FIRST_RANGE, most)
        while end > 1 and len(found) < most and size < PAGE_BYTES:
            start = max(1, end - length)
            entries = await self._between(keys, start, end, most=2 * most + FIRST_RANGE, max_bytes=PAGE_BYTES)
            if entries is None:
                length = max(1, (end - start) // 2)
                continue
            for entry in reversed(entries):
                if len(found) == most or size >= PAGE_BYTES:
                    break
                found.append(entry)
                size += len(entry.data)
            expected = length * (most - len(found)) // len(entries) if entries else length * RANGE_FACTOR
            end, length = start, max(FIRST_RANGE, min(expected, length * RANGE_FACTOR))
        return found

    async def _between(self, keys: str, start: int, end: int, *, most: int, max_bytes: int) -> list[KeyValue] | None:
        """The entries of the revisions from `start` on, before `end`, oldest first. None where they are too many."""
        found: list[KeyValue] = []
        size, after, opened_after = 0, start - 1, -1
        # The server's count of waiting messages may be too large (see `read_present`); it counts anew for a new scan.
        while after > opened_after:
            opened_after = after
            async with open_scan(
                self._bus, self._bucket, subject=self._prefix + keys, start_sequence=after + 1, capacity=most
            ) as scan:
                waiting = scan.pending_at_open > 0
                while waiting:
                    messages = await scan.next(most, within_s=SILENT_S)
                    if not messages:
                        break
                    for message in messages:
                        if message.sequence >= end:
                            return found
                        after, waiting = message.sequence, message.pending > 0
                        if is_deletion(message.headers):
                            continue
                        found.append(self.stored(message))
                        size += len(message.data)
                        if len(found) > 1 and (len(found) > most or size > max_bytes):
                            return None
                if not waiting:
                    return found
        return found

    async def _newest(self, subject: str) -> Message | None:
        if self._bucket not in READ_IN_PARTS:
            return await self._bus.last_message(self._bucket, subject)
        check_subjects((subject,))
        # The question spares a consumer where there is nothing: anybody may try a token.
        if await subjects_in(self._bus, self._bucket, subject):
            async with (
                open_scan(self._bus, self._bucket, subject=subject, last_per_subject=True) as scan,
                aclosing(read_present(self._bus, self._bucket, subject, scan)) as entries,
            ):
                async for message in entries:
                    return message
        return None

    def stored(self, message: Message) -> KeyValue:
        """A message of this bucket's stream as an entry."""
        return KeyValue(message.subject.removeprefix(self._prefix), message.data, message.sequence, message.headers)
