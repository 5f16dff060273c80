"""
Dead letters read from `DLQ`, by the page or one by one, and purged. `hooks.dead_letters.writer` writes them.

An app sees its own alone, because every read has a subject with its key. The id of a dead letter is its sequence in
the stream, and its time the one at which the stream stored it, so both grow together.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from hooks import SERVICE_NAME
from shared.contracts import subjects
from shared.contracts.messages import DeadLetter, decode
from shared.contracts.streams import DLQ
from shared.errors import InvalidError, NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.pull import Pull
from shared.messaging.streams import delete_message, purge
from shared.runtime.slices import Slices

READ_AT_ONCE = 64
"""Dead letters that are pulled ahead; a page may discard that many."""
READ_BYTES = 4 << 20
PURGED_AT_ONCE = 256
QUIET_S = 5.0
"""Wait after which a scan ends: the dead letters that it counted have been purged meanwhile."""


class DeadLetterFilter(Struct, frozen=True, kw_only=True):
    """Selects dead letters of an app: of a hook or `entrance`, for a reason, stored from `since` on, before `until`."""

    app_key: str
    hook: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def subject(self) -> str:
        return subjects.dead_letter(SERVICE_NAME, self.app_key, self.hook or "*", self.reason or "*")


class StoredDeadLetter(Struct, frozen=True, kw_only=True):
    """
    A stored dead letter. `body` is the record that could not be delivered, or the input that was no event; `cut` is
    true where no message could hold all of it. `source` is the event's position, `<stream>:<sequence>:<index>`.
    """

    id: int
    at: datetime
    hook: str
    reason: str
    message: str
    source: str
    attempts: int
    key: str
    cut: bool
    body: str


class DeadLetterStore:
    """Reader of dead letters. Every method raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(
        self, selection: DeadLetterFilter, *, after: int = 0, through: int | None = None, limit: int, max_bytes: int
    ) -> tuple[list[StoredDeadLetter], int | None]:
        """
        Read the oldest dead letters after the id `after`, up to `limit` of them or about `max_bytes`.

        Returns:
            The dead letters, and the id after which to continue; None where there are no more up to `through`.
        """
        messages, following = await self._page(
            selection, after=after, through=through, limit=limit, max_bytes=max_bytes
        )
        found = []
        slices = Slices()
        for message in messages:
            found.append(_stored(message))
            await slices.turn()
        return found, following

    async def _page(
        self, selection: DeadLetterFilter, *, after: int, through: int | None, limit: int, max_bytes: int
    ) -> tuple[list[Message], int | None]:
        found: list[Message] = []
        size = 0
        start_at = selection.since if after == 0 else None
        async with open_scan(
            self._bus,
            DLQ,
            subject=selection.subject,
            start_sequence=after + 1,
            start_at=start_at,
            capacity=min(limit, READ_AT_ONCE),
            capacity_bytes=READ_BYTES,
        ) as scan:
            remaining = scan.pending_at_open
            while remaining:
                messages = await _next(scan, limit - len(found))
                if not messages:
                    break
                for message in messages:
                    remaining = message.pending
                    if _beyond(message, selection.until, through):
                        return found, None
                    if selection.since is not None and message.at < selection.since:
                        continue
                    found.append(message)
                    size += len(message.data)
                    if len(found) == limit or size >= max_bytes:
                        return found, message.sequence if remaining else None
        return found, None

    async def get(self, app_key: str, id: int) -> StoredDeadLetter:
        """Read one dead letter. Raises `NotFoundError` when the app has none of that id."""
        found, _ = await self.read(DeadLetterFilter(app_key=app_key), after=id - 1, through=id, limit=1, max_bytes=1)
        if not found:
            raise NotFoundError("there is no such dead letter")
        return found[0]

    async def newest(self) -> int:
        """Return the id of the newest dead letter of all apps."""
        return (await self._bus.stream_state(DLQ)).last_sequence

    async def purge(self, selection: DeadLetterFilter) -> int:
        """Purge the dead letters stored by now, from `since` on and before `until`, and return their number."""
        # Read first: dead letters that are stored during the purge stay.
        before = await self.newest() + 1
        if selection.since is not None:
            return await self._purge_one_by_one(selection, through=before - 1)
        if selection.until is not None:
            later = DeadLetterFilter(
                app_key=selection.app_key, hook=selection.hook, reason=selection.reason, since=selection.until
            )
            found, _ = await self.read(later, through=before - 1, limit=1, max_bytes=1)
            before = found[0].id if found else before
        return await purge(self._bus, DLQ, selection.subject, before_sequence=before)

    async def _purge_one_by_one(self, selection: DeadLetterFilter, *, through: int) -> int:
        """JetStream purges up to a sequence, and not from one on."""
        purged = 0
        after: int | None = 0
        while after is not None:
            messages, after = await self._page(
                selection, after=after, through=through, limit=PURGED_AT_ONCE, max_bytes=READ_BYTES
            )
            await self.remove([message.sequence for message in messages])
            purged += len(messages)
        return purged

    async def remove(self, ids: Sequence[int]) -> None:
        """Remove these, of any app."""
        await asyncio.gather(*(delete_message(self._bus, DLQ, id) for id in ids))


async def _next(scan: Pull, most: int) -> list[Message]:
    try:
        async with asyncio.timeout(QUIET_S):
            return await scan.next(most)
    except TimeoutError:
        return []


def _beyond(message: Message, until: datetime | None, through: int | None) -> bool:
    return (until is not None and message.at >= until) or (through is not None and message.sequence > through)


def _stored(message: Message) -> StoredDeadLetter:
    _, app_key, owner_id, reason = subjects.parse_dead_letter(message.subject)
    try:
        dead_letter = decode(message.data, DeadLetter)
    except InvalidError as error:
        # Perhaps of a later release. It must not hide those behind it.
        dead_letter = DeadLetter(
            service=SERVICE_NAME,
            app_key=app_key,
            owner_id=owner_id,
            reason=reason,
            message=f"the letter cannot be read: {error.message}",
            at=message.at,
            source="",
            body=message.data.decode(errors="replace"),
        )
    return StoredDeadLetter(
        id=message.sequence,
        at=message.at,
        hook=owner_id,
        reason=reason,
        message=dead_letter.message,
        source=dead_letter.source,
        attempts=dead_letter.attempts,
        key=dead_letter.key,
        cut=dead_letter.cut,
        body=dead_letter.body,
    )
