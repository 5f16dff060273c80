"""
Previews: the records of a hook, rendered and not sent, from a posted event or from the newest ones that match.

An inactive hook is rendered as if it were active. `EVENTS` belongs to all apps, so the newest events of one app are
searched backwards, in ranges that grow; the answer has the range that was searched.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
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
from shared.messaging.message import Message
from shared.messaging.reverse_scan import ranges_back
from shared.profiles.cache import ProfileCache
from shared.profiles.store import Profile
from shared.runtime.fair_share import FairShare

FIRST_RANGE = 64
SCANNED_SEQUENCES = sum(FIRST_RANGE * 4**step for step in range(7))
"""Sequences of `EVENTS` that are scanned, the newest first: 349,504."""
SCANNED_BYTES = 32 << 20
SCANNED_AT_ONCE = 10_000
"""Messages that are held at a time."""
DECODED_AT_ONCE = 64 << 10
"""Bytes that are decoded before the event loop runs other tasks: some 5 ms. Deliveries continue meanwhile."""
SCAN_S = 5.0
SCANS_AT_ONCE = 2
SCANS_RESERVE = 4
SCANS_WAITING = 32
"""Previews that scan at once, those of apps that have none beyond it, and those that wait."""
POSTED = "POSTED:0:0"
"""The source of an event that is in no stream."""


class PreviewForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The events to render: one as it would be posted, or the `last` so many that match."""

    event: PostedEvent | None = None
    last: Annotated[int, Meta(ge=1, le=100)] | None = None


class PreviewRecord(Struct, frozen=True, kw_only=True):
    """One record. `size_bytes` counts the partition key, as Kinesis does; `oversize` would make it a dead letter."""

    record: msgspec.Raw
    size_bytes: int
    partition_key: str
    oversize: bool
    matches: bool


class SearchedRange(Struct, frozen=True, kw_only=True):
    """The part of `EVENTS` that was searched. `all` is true where there is nothing older."""

    first_sequence: int
    last_sequence: int
    messages: int
    all: bool


class Preview(Struct, frozen=True, kw_only=True):
    """The records, in the order in which they would be sent. `matches` is false where the hook would not fire."""

    records: tuple[PreviewRecord, ...]
    looked: SearchedRange | None = None


class Previews:
    """Renders previews. Raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus, profiles: ProfileCache, clock: Callable[[], datetime]) -> None:
        self._bus = bus
        self._profiles = profiles
        self._clock = clock
        self._scans = FairShare(
            SCANS_AT_ONCE, name="previews", reserve=SCANS_RESERVE, waiting=SCANS_WAITING, retry_after_s=SCAN_S
        )

    async def of_event(self, rule: Rule, posted: PostedEvent) -> Preview:
        """Render one event. Raises `InvalidError`, with the field, where a POST of the event would be refused."""
        event = await self._admit(rule.app_key, posted)
        return Preview(records=(await self._render(rule, event, POSTED),))

    async def of_last(self, rule: Rule, number: int) -> Preview:
        """Render the newest `number` events that match, as far as they are found. Raises `BusyError` as well."""
        async with self._scans.hold(rule.app_key):
            found, looked = await self._find(rule, number)
        return Preview(
            records=tuple([await self._render(rule, event, source) for event, source in found]), looked=looked
        )

    async def _admit(self, app_key: str, posted: PostedEvent) -> RoutedEvent:
        admission = await admit(
            app_key,
            [msgspec.json.encode(posted)],
            max_payload=self._bus.max_payload,
            now_ms=int(self._clock().timestamp() * 1000),
            new_id=make_ulid,
        )
        for error in admission.refused:
            raise InvalidError(error.message, field=f"event.{error.field}" if error.field else "event")
        (chunk,) = admission.chunks
        ((_, event),) = (await read_message(chunk.data, app_key, chunk.partition)).events
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
            matches=bool(_single_hook_index(rule).match(event)),
        )

    async def _profile(self, event: RoutedEvent) -> Profile | None:
        if not event.ext_id:
            return None
        try:
            return await self._profiles.get(event.app_key, event.ext_id)
        except InvalidError:
            # Delivery continues without it as well.
            return None

    async def _find(self, rule: Rule, number: int) -> tuple[list[tuple[RoutedEvent, str]], SearchedRange]:
        state = await self._bus.stream_state(EVENTS)
        first = end = state.last_sequence + 1
        index = _single_hook_index(rule)
        found: deque[tuple[RoutedEvent, str]] = deque()
        messages = 0
        ranges = ranges_back(
            self._bus,
            EVENTS,
            subjects.events_of_app(rule.app_key),
            end=end,
            first_sequence=max(state.first_sequence, end - SCANNED_SEQUENCES),
            length=FIRST_RANGE,
            most=SCANNED_AT_ONCE,
            max_bytes=SCANNED_BYTES,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SCAN_S), aclosing(ranges):
                async for part in ranges:
                    newest = await newest_matching(rule.app_key, index, part.messages, number - len(found))
                    found.extendleft(reversed(newest))
                    messages, first = messages + len(part.messages), part.first_sequence
                    if len(found) >= number:
                        break
        looked = SearchedRange(
            first_sequence=first, last_sequence=end - 1, messages=messages, all=first <= state.first_sequence
        )
        return list(found), looked


async def newest_matching(
    app_key: str, index: HookIndex, messages: Sequence[Message], most: int
) -> deque[tuple[RoutedEvent, str]]:
    """The newest `most` events for which a hook would fire, each with its source, in their order."""
    found: deque[tuple[RoutedEvent, str]] = deque(maxlen=most)
    decoded = 0
    for message in messages:
        if decoded >= DECODED_AT_ONCE:
            decoded = 0
            await asyncio.sleep(0)
        decoded += len(message.data)
        partition = subjects.partition_of_events(message.subject)
        if partition is None:
            continue  # No consumer of a partition reads it either.
        events = (await read_message(message.data, app_key, partition)).events
        source = f"{EVENTS.name}:{message.sequence}"
        found += ((event, f"{source}:{position}") for position, event in events if index.match(event))
    return found


def _single_hook_index(rule: Rule) -> HookIndex:
    """An index of this one hook, active or not."""
    return HookIndex([msgspec.structs.replace(rule, hook=msgspec.structs.replace(rule.hook, active=True))])
