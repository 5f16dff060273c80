"""
Dead letters read back from `DLQ`: by the page, one by one, and thrown away. Writing is in `dead_letters.py`.

An app sees its own alone, because every question carries a subject with its key. The number of a letter is its
sequence in the stream, its time the one at which the stream stored it, so that both grow together.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from hooks.alerts import SERVICE
from shared.contracts import subjects
from shared.contracts.messages import DeadLetter, decode
from shared.contracts.streams import DLQ
from shared.errors import InvalidError, NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.pull import Pull
from shared.messaging.streams import delete_message, purge

READ_AT_ONCE = 64
"""Letters that are asked for ahead: what a page may have read in vain."""
READ_BYTES = 4 << 20
QUIET_S = 5.0
"""After this long nothing more comes: what was counted has been thrown away meanwhile."""


class DeadLetterFilter(Struct, frozen=True, kw_only=True):
    """Which letters of an app: of one hook or `entrance`, for one reason, stored from `since` on and before `until`."""

    app_key: str
    hook: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def subject(self) -> str:
        return subjects.dead_letter(SERVICE, self.app_key, self.hook or "*", self.reason or "*")


class StoredDeadLetter(Struct, frozen=True, kw_only=True):
    """
    A dead letter. `body` is the record that could not be delivered, or what came in and was no event; `cut` says that
    no message could hold all of it. `source` is the event's place in the mesh, `<stream>:<sequence>:<index>`.
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
    """Every method raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(
        self, wanted: DeadLetterFilter, *, after: int = 0, through: int | None = None, limit: int, max_bytes: int
    ) -> tuple[list[StoredDeadLetter], int | None]:
        """
        The oldest letters after the number `after`, up to `limit` of them or about `max_bytes`.

        Gives:
            The letters, and the number to go on after; None where there are no more up to `through`.
        """
        found: list[StoredDeadLetter] = []
        size = 0
        start_at = wanted.since if after == 0 else None
        async with open_scan(
            self._bus,
            DLQ,
            subject=wanted.subject,
            start_sequence=after + 1,
            start_at=start_at,
            capacity=min(limit, READ_AT_ONCE),
            capacity_bytes=READ_BYTES,
        ) as scan:
            left = scan.pending_at_open
            while left:
                messages = await _next(scan, limit - len(found))
                if not messages:
                    break
                for message in messages:
                    left = message.pending
                    if _beyond(message, wanted.until, through):
                        return found, None
                    if wanted.since is not None and message.at < wanted.since:
                        continue
                    found.append(_stored(message))
                    size += len(message.data)
                    if len(found) == limit or size >= max_bytes:
                        return found, message.sequence if left else None
        return found, None

    async def get(self, app_key: str, id: int) -> StoredDeadLetter:
        """Raises `NotFoundError` when the app has no such letter."""
        found, _ = await self.read(DeadLetterFilter(app_key=app_key), after=id - 1, through=id, limit=1, max_bytes=1)
        if not found:
            raise NotFoundError("there is no such dead letter")
        return found[0]

    async def newest(self) -> int:
        """The number of the newest letter of anybody."""
        return (await self._bus.stream_state(DLQ)).last_sequence

    async def purge(self, wanted: DeadLetterFilter) -> int:
        """Throw away what is stored now and before `until`; `since` is passed over. Gives how many there were."""
        # Asked first: what is stored during the question stays.
        before = await self.newest() + 1
        if wanted.until is not None:
            later = DeadLetterFilter(app_key=wanted.app_key, hook=wanted.hook, reason=wanted.reason, since=wanted.until)
            found, _ = await self.read(later, through=before - 1, limit=1, max_bytes=1)
            before = found[0].id if found else before
        return await purge(self._bus, DLQ, wanted.subject, before_sequence=before)

    async def remove(self, ids: Sequence[int]) -> None:
        """Throw these away, whosever they are."""
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
        # Of a later release, perhaps. It must not close the way to those behind it.
        dead_letter = DeadLetter(
            service=SERVICE,
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
