"""
Readers of backlogs: each reads `EVENTS` from its checkpoint on and delivers the events of detached hooks.

A scan is open only while the ack window of the backlog has room and there are events to read. Few scans are open at a
time in one process. A target that fails has a handful of queued records, to probe it with.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol

import structlog

from hooks.backlog.backlog import BOUNDS, PROBING, Backlog
from hooks.backlog.checkpoints import Checkpoints
from hooks.backlog.stall_detector import StallPolicy
from hooks.delivery.ack_window import PendingMessage
from hooks.delivery.targets import Targets
from hooks.events.decoding import read_message
from hooks.matching.routed_event import RoutedEvent
from hooks.matching.rule import Target
from shared.contracts.streams import EVENTS
from shared.errors import MillraceError
from shared.messaging.bus import StreamState
from shared.messaging.message import Message
from shared.messaging.pull import ClosedError
from shared.runtime.fair_share import FairShare
from shared.runtime.retry import Backoff
from shared.runtime.slices import Slices

log = structlog.get_logger()

MESSAGES_AT_ONCE = 64
SCANS_AT_ONCE = 8
SCANS_RESERVE = 8
"""Scans that may be open at once in one process, and further ones of apps that have none."""
GATHER_S = 0.05
"""Wait before a scan, so that events gather for it."""
IDLE_S = 0.5
"""Time that an open scan waits for a message."""
RETRY = Backoff(first_s=0.1, max_s=10.0)


class EventScan(Protocol):
    """The part of `shared.messaging.pull.Pull`, as `open_scan` yields it, that is needed here."""

    @property
    def pending_at_open(self) -> int: ...

    async def next(self, most: int) -> list[Message]: ...


class EventStream(Protocol):
    """The part of the stream `EVENTS` that is needed here."""

    def scan(self, app_key: str, partition: int, start: int) -> AbstractAsyncContextManager[EventScan]: ...

    async def state(self) -> StreamState: ...


class BacklogObserver(Protocol):
    """Receives the changes of backlogs that an operator has to know."""

    def far_behind(self, target: Target, since: datetime) -> None: ...

    def caught_up(self, target: Target) -> None: ...

    def lost(self, target: Target, events: int) -> None: ...


class BacklogReaders:
    """The state that the backlogs of all partitions of a process share. `backlogs` are those of detached hooks."""

    def __init__(
        self,
        events: EventStream,
        checkpoints: Checkpoints,
        *,
        observer: BacklogObserver,
        clock: Callable[[], datetime],
        stall_policy: StallPolicy | None = None,
    ) -> None:
        self.events = events
        self.checkpoints = checkpoints
        self.observer = observer
        self.stall_policy = stall_policy or StallPolicy()
        self.scan_slots = FairShare(SCANS_AT_ONCE, name="scans", reserve=SCANS_RESERVE)
        self.backlogs: set[Backlog] = set()
        self._clock = clock

    @property
    def targets(self) -> int:
        """Number of targets that are detached in some partition."""
        return len({backlog.target for backlog in self.backlogs})

    def lag_of(self, app_key: str, hook_id: str) -> int | None:
        """Number of events that a hook is behind; None while it is not detached."""
        return _total(
            backlog.behind[hook_id]
            for backlog in self.backlogs
            if backlog.target.app_key == app_key and hook_id in backlog.behind
        )

    async def lost_of(self, backlog: Backlog) -> int:
        """Number of events that `EVENTS` had deleted before the backlog reached them. An estimate after a restart."""
        if not backlog.lag:
            return 0
        for delay_s in RETRY.delays():
            try:
                state = await self.events.state()
                break
            except MillraceError:
                await asyncio.sleep(delay_s)
        return backlog.lag if state.first_sequence > backlog.began else 0

    def check_age(self, backlog: Backlog) -> None:
        """Report a backlog whose oldest event has reached half of the age at which `EVENTS` deletes it."""
        oldest = backlog.window.oldest
        if oldest is not None and oldest.message.at_ns:
            since = datetime.fromtimestamp(oldest.message.at_ns / 1e9, UTC)
            if (self._clock() - since).total_seconds() > EVENTS.max_age_s / 2:
                self.observer.far_behind(backlog.target, since)


def _total(numbers: Iterable[int]) -> int | None:
    found = list(numbers)
    return sum(found) if found else None


class BacklogReader:
    """
    The reader of one backlog. `run` ends when the hooks are attached again, or after `close`.

    Args:
        dispatch: Queues an event's records for the backlog's hooks.
    """

    def __init__(
        self,
        backlog: Backlog,
        partition: int,
        shared: BacklogReaders,
        targets: Targets,
        dispatch: Callable[[PendingMessage, RoutedEvent, str, Backlog], Awaitable[None]],
    ) -> None:
        self._backlog = backlog
        self._partition = partition
        self._shared = shared
        self._targets = targets
        self._dispatch = dispatch
        self._closed = asyncio.Event()
        self._partial: PendingMessage | None = None
        self._next_index = 0
        self._slices = Slices()

    def close(self) -> None:
        """Queue no more records."""
        self._closed.set()
        self._backlog.window.close()

    async def run(self) -> None:
        delays = RETRY.delays()
        while not self._ended:
            if self._full:
                await self._wait_room()
                continue
            if self._backlog.caught_up and self._partial is None:
                await self._backlog.window.wait_change()
                await self._pause(GATHER_S)
                continue
            try:
                await self._scan()
            except MillraceError as error:
                log.warning("backlog_read_failed", key=self._backlog.key, code=error.code, message=error.message)
                await self._pause(next(delays))
            else:
                delays = RETRY.delays()

    @property
    def _ended(self) -> bool:
        # The partition's reader must not deliver the rest of a message: it would begin with its first event.
        return self._closed.is_set() or (self._partial is None and self._backlog.attach())

    async def _wait_room(self) -> None:
        # A scan for each finished record would be most of the work.
        while self._backlog.window.half_full and not self._closed.is_set():
            await self._backlog.window.wait_change()

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._closed.wait()
        except TimeoutError:
            pass

    @property
    def _full(self) -> bool:
        window, target = self._backlog.window, self._backlog.target
        window.bounds = BOUNDS if self._targets.error_of(target) is None else PROBING
        return window.full

    async def _scan(self) -> None:
        backlog = self._backlog
        async with self._shared.scan_slots.hold(backlog.target.app_key):
            # Events that the partition's reader skipped before the scan began are in the stream, or deleted from it.
            missed = backlog.missed
            async with self._shared.events.scan(
                backlog.target.app_key, self._partition, backlog.dispatched_to + 1
            ) as scan:
                if not scan.pending_at_open:
                    self._end_message()
                    self._advance(missed)
                while not self._ended and not (backlog.caught_up and self._partial is None):
                    try:
                        async with asyncio.timeout(IDLE_S):
                            messages = await scan.next(MESSAGES_AT_ONCE)
                    except (TimeoutError, ClosedError):
                        return
                    for message in messages:
                        if not await self._dispatch_message(message):
                            return
                        if not message.pending:
                            self._advance(missed)

    def _advance(self, sequence: int) -> None:
        self._backlog.dispatched_to = max(self._backlog.dispatched_to, sequence)

    async def _dispatch_message(self, message: Message) -> bool:
        """Dispatch a message's events. Returns False where it has to be read again for the rest of them."""
        if self._partial is not None and self._partial.message.sequence != message.sequence:
            self._end_message()
        pending = self._partial or self._backlog.window.add(message)
        events = (await read_message(message.data, self._backlog.target.app_key, self._partition)).events
        message.data = b""
        place = f"{EVENTS.name}:{message.sequence}"
        self._partial = pending
        for index, event in events:
            if index < self._next_index:
                continue
            await self._slices.turn()
            if self._full or self._closed.is_set():
                return False
            await self._dispatch(pending, event, f"{place}:{index}", self._backlog)
            self._next_index = index + 1
        self._end_message()
        self._advance(message.sequence)
        return True

    def _end_message(self) -> None:
        if self._partial is not None:
            self._partial.close()
        self._partial = None
        self._next_index = 0
