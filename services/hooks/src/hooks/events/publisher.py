"""
Publishing of posted events to `EVENTS`: the chunks of a partition one after the other, partitions side by side. The
answer follows once JetStream has stored them all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from hooks.events.admission import EventChunk, EventError, admit
from shared.contracts import subjects
from shared.errors import BusyError, MillraceError, StreamFullError
from shared.ids import make_ulid
from shared.messaging.bus import Published
from shared.runtime.fair_share import FairShare

RETRY_AFTER_S = 5.0
BODIES_BYTES = 128 << 20
BODIES_RESERVE_BYTES = 128 << 20
BODIES_FLOOR_BYTES = 16 << 20
"""
Bodies of events in memory, from their first byte to the answer: eight of the largest size of one app, and one of each
app that has none.
"""
BODIES_RETRY_S = 1.0
LISTED = 1000
"""Most errors, and most indexes of duplicates, that an answer lists; the counts are of all."""


class EventsReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Outcome of a request's events: each is accepted, a duplicate or rejected. `errors` is in the order of the request.

    `accepted` counts the events that this request has stored. `duplicates` counts those that `EVENTS` has from an
    earlier request with the same ids and users; `duplicate_indexes` are their places in this one. An event with a
    warning is accepted.
    """

    accepted: int
    duplicates: int
    rejected: int
    duplicate_indexes: tuple[int, ...]
    errors: tuple[EventError, ...]
    warnings: tuple[EventError, ...] = ()


class EventBus(Protocol):
    """The part of `shared.messaging.bus.Bus` that is needed here."""

    @property
    def max_payload(self) -> int: ...

    async def publish(self, subject: str, data: bytes, *, message_id: str | None = None) -> Published: ...


class EventPublisher:
    """
    Publishes the events of HTTP requests; its route is in `hooks.routes.events`.

    Args:
        describe_full: Returns the words for a stream that takes no more.
        alert_full: Called with them, once until there is room.
    """

    def __init__(
        self,
        publisher: EventBus,
        describe_full: Callable[[], Awaitable[str]],
        alert_full: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.bodies = FairShare(
            BODIES_BYTES,
            name="bytes of events",
            reserve=BODIES_RESERVE_BYTES,
            floor=BODIES_FLOOR_BYTES,
            retry_after_s=BODIES_RETRY_S,
        )
        self._publisher = publisher
        self._describe_full = describe_full
        self._alert_full = alert_full
        self._clock = clock
        self._full = ""
        """The words about a full stream, until it takes events again."""

    async def accept(self, app_key: str, posted: Sequence[bytes]) -> EventsReply:
        """
        Check events, one JSON object each, and store the good ones.

        A failed request can be repeated: the part that it stored is not stored again within the duplicate window of
        `EVENTS`, if the events have ids of their own.

        Raises:
            BusyError: The stream is full.
            UnavailableError: JetStream did not confirm all of it.
        """
        now_ms = int(self._clock().timestamp() * 1000)
        admission = await admit(
            app_key, posted, max_payload=self._publisher.max_payload, now_ms=now_ms, new_id=make_ulid
        )
        chunks, refused = admission.chunks, admission.refused
        partitions: dict[int, list[EventChunk]] = {}
        for chunk in chunks:
            partitions.setdefault(chunk.partition, []).append(chunk)
        ended = await asyncio.gather(
            *(self._publish(app_key, chunks) for chunks in partitions.values()), return_exceptions=True
        )
        failed = [error for error in ended if isinstance(error, BaseException)]
        if failed:
            raise await self._error_to_raise(failed)
        if chunks:
            self._full = ""
        duplicates = sorted(index for part in ended if not isinstance(part, BaseException) for index in part)
        return EventsReply(
            accepted=sum(len(chunk.indexes) for chunk in chunks) - len(duplicates),
            duplicates=len(duplicates),
            rejected=len(refused),
            duplicate_indexes=tuple(duplicates[:LISTED]),
            errors=tuple(refused[:LISTED]),
            warnings=tuple(admission.warnings[:LISTED]),
        )

    async def _publish(self, app_key: str, chunks: Sequence[EventChunk]) -> list[int]:
        """Publish the chunks of a partition. Returns the indexes of the events that the stream had already."""
        duplicates: list[int] = []
        # The next chunk only after the one before, or a failure would reverse their order.
        for chunk in chunks:
            subject = subjects.events(app_key, chunk.partition)
            published = await self._publisher.publish(subject, chunk.data, message_id=chunk.message_id)
            if published.duplicate:
                duplicates += chunk.indexes
        return duplicates

    async def _error_to_raise(self, failed: Sequence[BaseException]) -> BaseException:
        for error in failed:
            if not isinstance(error, MillraceError):
                return error
        for error in failed:
            if isinstance(error, BusyError):
                message = await self._told_full() if isinstance(error, StreamFullError) else error.message
                return BusyError(message, retry_after_s=error.retry_after_s or RETRY_AFTER_S)
        return failed[0]

    async def _told_full(self) -> str:
        words = self._full or await self._describe_full()
        if not self._full:
            self._full = words
            self._alert_full(words)
        return words
