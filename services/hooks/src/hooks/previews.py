"""
What a hook would send, without sending: rendered from an event that is given, or from the newest ones that match.

An inactive hook is shown as if it were active. `EVENTS` belongs to all apps, so the newest events of one are looked for
backwards, in windows that grow; how far it went is in the answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from hooks.delivery.model import partition_key
from hooks.events.admission import PostedEvent, admit
from hooks.events.decoding import read_message
from hooks.matching.rendering import render
from hooks.matching.routed_event import RoutedEvent
from hooks.matching.rule import HookIndex, Rule
from hooks.sinks import SINKS
from shared.contracts import subjects
from shared.contracts.streams import EVENTS
from shared.errors import InvalidError
from shared.ids import make_ulid
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.profiles.cache import ProfileCache
from shared.profiles.store import Profile

WINDOWS = tuple(64 * 4**step for step in range(7))
"""Sequences of `EVENTS` that are looked through, the newest first: 349,504 in all."""
LOOK_BYTES = 32 << 20
LOOK_S = 5.0
POSTED = "POSTED:0:0"
"""The source of an event that is in no stream."""


class PreviewForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to render: an event as it would be posted, or the `last` so many that match."""

    event: PostedEvent | None = None
    last: Annotated[int, Meta(ge=1, le=100)] | None = None


class PreviewRecord(Struct, frozen=True, kw_only=True):
    """One record. `size_bytes` counts the partition key, as Kinesis does; `oversize` would make it a dead letter."""

    record: msgspec.Raw
    size_bytes: int
    partition_key: str
    oversize: bool
    matches: bool


class Looked(Struct, frozen=True, kw_only=True):
    """The part of `EVENTS` that was looked through. `all` says that there is nothing older."""

    first_sequence: int
    last_sequence: int
    messages: int
    all: bool


class Preview(Struct, frozen=True, kw_only=True):
    """The records, in the order in which they would be sent. `matches` is false where the hook would not fire."""

    records: tuple[PreviewRecord, ...]
    looked: Looked | None = None


class Previews:
    """Raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus, profiles: ProfileCache, clock: Callable[[], datetime]) -> None:
        self._bus = bus
        self._profiles = profiles
        self._clock = clock

    async def of_event(self, rule: Rule, posted: PostedEvent) -> Preview:
        """Raises `InvalidError`, with the field, where the entrance would refuse the event."""
        event = self._admit(rule.app_key, posted)
        return Preview(records=(await self._render(rule, event, POSTED),))

    async def of_last(self, rule: Rule, number: int) -> Preview:
        """Render the newest `number` events that match, as far as they are found."""
        found, looked = await self._find(rule, number)
        return Preview(
            records=tuple([await self._render(rule, event, source) for event, source in found]), looked=looked
        )

    def _admit(self, app_key: str, posted: PostedEvent) -> RoutedEvent:
        chunks, refused = admit(
            app_key,
            [msgspec.json.encode(posted)],
            max_payload=self._bus.max_payload,
            now_ms=int(self._clock().timestamp() * 1000),
            new_id=make_ulid,
        )
        for error in refused:
            raise InvalidError(error.message, field=f"event.{error.field}" if error.field else "event")
        ((_, event),), _ = read_message(chunks[0].data, app_key, chunks[0].partition)
        return event

    async def _render(self, rule: Rule, event: RoutedEvent, source: str) -> PreviewRecord:
        profile = await self._profile(event)
        data = render(rule, event, source, profile.attributes if profile is not None else None)
        key = partition_key(event.user_id)
        size = len(data) + len(key.encode())
        return PreviewRecord(
            record=msgspec.Raw(data),
            size_bytes=size,
            partition_key=key,
            oversize=size > min(rule.hook.max_record_bytes, SINKS[rule.hook.type].limits.record_bytes),
            matches=bool(_index(rule).match(event)),
        )

    async def _profile(self, event: RoutedEvent) -> Profile | None:
        if event.ext_id is None:
            return None
        try:
            return await self._profiles.get(event.app_key, event.ext_id)
        except InvalidError:
            # Delivery goes on without it as well.
            return None

    async def _find(self, rule: Rule, number: int) -> tuple[list[tuple[RoutedEvent, str]], Looked]:
        state = await self._bus.stream_state(EVENTS)
        first, end = state.last_sequence + 1, state.last_sequence
        found: list[tuple[RoutedEvent, str]] = []
        messages = size = 0
        stop_at = asyncio.get_running_loop().time() + LOOK_S
        for width in WINDOWS:
            start = max(state.first_sequence, first - width)
            if start >= first:
                break
            window = _Window(rule, number - len(found), start, first)
            if not await window.read(self._bus, LOOK_BYTES - size, stop_at):
                # Read in part, from its older end: what lies between would be missing.
                break
            found = [*window.found, *found]
            messages, size, first = messages + window.messages, size + window.size, start
            if len(found) >= number:
                break
        looked = Looked(first_sequence=first, last_sequence=end, messages=messages, all=first <= state.first_sequence)
        return found, looked


class _Window:
    """The sequences from `start` to before `end`, and the newest events in them for which a hook would fire."""

    def __init__(self, rule: Rule, most: int, start: int, end: int) -> None:
        self._app_key = rule.app_key
        self._index = _index(rule)
        self._found: deque[tuple[RoutedEvent, str]] = deque(maxlen=most)
        self._start = start
        self._end = end
        self.messages = 0
        self.size = 0

    @property
    def found(self) -> list[tuple[RoutedEvent, str]]:
        return list(self._found)

    async def read(self, bus: Bus, max_bytes: int, stop_at: float) -> bool:
        """False when it was too much, or took too long."""
        subject = subjects.events_of_app(self._app_key)
        try:
            async with (
                asyncio.timeout_at(stop_at),
                open_scan(bus, EVENTS, subject=subject, start_sequence=self._start) as scan,
            ):
                left = scan.pending_at_open
                while left:
                    for message in await scan.next(64):
                        left = message.pending
                        if message.sequence >= self._end:
                            return True
                        self.messages += 1
                        self.size += len(message.data)
                        if self.size > max_bytes:
                            return False
                        self._take(message)
        except TimeoutError:
            return False
        return True

    def _take(self, message: Message) -> None:
        partition = subjects.partition_of_events(message.subject)
        if partition is None:
            return  # No partition reads it either.
        events, _ = read_message(message.data, self._app_key, partition)
        place = f"{EVENTS.name}:{message.sequence}"
        self._found += ((event, f"{place}:{index}") for index, event in events if self._index.match(event))


def _index(rule: Rule) -> HookIndex:
    """Of this one hook, active or not."""
    return HookIndex([msgspec.structs.replace(rule, hook=msgspec.structs.replace(rule.hook, active=True))])
