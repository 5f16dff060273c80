"""
Fill of streams and buckets: gauges for each that a service works with, and an alert once it has 80 % of its limit.

A crossing is told once, whatever number of replicas sees it, and also over restarts: the newest alerts of the stream
say whether it was told, and one of several that tell it at once is stored. `has-room` ends it.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog
from msgspec import Struct
from nats.errors import Error as NatsError

from shared.contracts import jetstream, subjects
from shared.contracts.messages import Alert, decode, encode
from shared.contracts.streams import ALERTS, EVENTS, Bucket, Stream
from shared.errors import ConflictError, InvalidError, MillraceError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message

log = structlog.get_logger()

EVERY_S: Final = 15.0
FILLING: Final = 0.8
ROOM: Final = 0.7
"""Share of the limit below which a crossing is over. Between the two nothing is told."""
FULL: Final = 0.9
"""Share above which a stream that drops the oldest may have dropped what is missing."""
AGE_MARGIN: Final = timedelta(minutes=5)

NO_APP: Final = "-"
SILENT_S: Final = 5.0
"""Time without an alert after which those that were read are taken for all. A repetition is told at most."""


class _Config(Struct):
    max_bytes: int = -1
    max_age: int = 0


class _State(Struct):
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    first_ts: datetime


class StreamFill(Struct):
    """Part of the server's description of a stream. `max_age` is in nanoseconds; 0 keeps messages for ever."""

    config: _Config
    state: _State

    @property
    def share(self) -> float:
        """The share of the limit that is used; 0 without a limit."""
        return self.state.bytes / self.config.max_bytes if self.config.max_bytes > 0 else 0.0


class FillWatch:
    """
    Watches streams and buckets of one service. It alerts for those whose `owner` it is; `run` is a task for its life.
    """

    def __init__(self, bus: Bus, service: str, specs: Sequence[Stream | Bucket]) -> None:
        self._bus = bus
        self._service = service
        self._specs = specs
        self._before: dict[str, StreamFill] = {}
        self._filling: dict[str, bool] = {}
        """By stream: whether its crossing is told. Absent while that is not known."""

    async def run(self) -> None:
        """Look at all of them, again and again."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look at all of them once. What NATS does not answer now is asked again the next time."""
        for spec in self._specs:
            try:
                await self._look(spec)
            except MillraceError as error:
                log.warning("stream_look_failed", stream=spec.name, code=error.code, message=error.message)

    async def _look(self, spec: Stream | Bucket) -> None:
        name = spec.stream if isinstance(spec, Bucket) else spec.name
        fill = await read_fill(self._bus, name)
        metrics = self._bus.metrics
        metrics.gauge("millrace_stream_messages", fill.state.messages, stream=name)
        metrics.gauge("millrace_stream_bytes", fill.state.bytes, stream=name)
        metrics.gauge("millrace_stream_limit_bytes", max(0, fill.config.max_bytes), stream=name)
        if isinstance(spec, Stream) and not spec.refuses_when_full:
            before = self._before.get(name)
            dropped = dropped_between(before, fill, datetime.now(UTC)) if before is not None else 0
            metrics.count("millrace_stream_dropped_total", dropped, stream=name)
        self._before[name] = fill
        if spec.owner == self._service:
            await self._tell(spec, fill)

    async def _tell(self, spec: Stream | Bucket, fill: StreamFill) -> None:
        filling = fill.share >= FILLING
        if self._filling.get(spec.name) == filling or ROOM <= fill.share < FILLING:
            return
        wanted, other = (_kind(spec, "filling"), _kind(spec, "has-room"))[:: 1 if filling else -1]
        (told, newest), (ended, _) = await self._last(wanted), await self._last(other)
        if told <= ended and (filling or ended):
            alert = Alert(
                service=self._service,
                app_key=NO_APP,
                kind=wanted,
                subject=spec.name,
                message=_message(spec, fill),
                at=datetime.now(UTC),
            )
            try:
                await self._bus.publish(self._subject(wanted), encode(alert), expect_last_sequence=newest)
                log.warning("alert_raised", kind=wanted, subject=spec.name, message=alert.message)
            except ConflictError:
                log.debug("alert_told_by_replica", kind=wanted)
        self._filling[spec.name] = filling

    async def _last(self, kind: str) -> tuple[int, int]:
        """
        The sequences in `ALERTS` of the newest alert of this kind, and of the newest message of its subject; 0 for
        none. What is no alert ends no crossing: an answer of NATS can be led there (docs/adr/0027).
        """
        alert = newest = 0
        async with open_scan(self._bus, ALERTS, subject=self._subject(kind)) as scan:
            left = scan.pending_at_open
            while left and (messages := await scan.next(256, within_s=SILENT_S)):
                for message in messages:
                    left, newest = message.pending, message.sequence
                    if _is_alert(message):
                        alert = newest
        return alert, newest

    def _subject(self, kind: str) -> str:
        return subjects.alert(self._service, NO_APP, kind)


def _is_alert(message: Message) -> bool:
    try:
        decode(message.data, Alert)
    except InvalidError:
        return False
    return True


def _kind(spec: Stream | Bucket, event: str) -> str:
    return f"{spec.name.lower().replace('_', '-')}-{event}"


def _message(spec: Stream | Bucket, fill: StreamFill) -> str:
    refuses = isinstance(spec, Bucket) or spec.refuses_when_full
    return (
        f"{fill.share:.0%} of {fill.config.max_bytes} bytes are used, by {fill.state.messages} messages; at 100 % "
        f"{'new ones are refused' if refuses else 'the oldest ones are dropped'}; {_setting(spec)} sets the limit"
    )


def _setting(spec: Stream | Bucket) -> str:
    return "MILLRACE_EVENTS_MAX_BYTES" if spec == EVENTS else "MILLRACE_STREAM_MAX_BYTES"


def dropped_between(before: StreamFill, after: StreamFill, now: datetime) -> int:
    """
    The messages that a full stream dropped between two looks. Those that grew too old, or were deleted in a stream with
    room, are not among them; those that were deleted in a full one may be.
    """
    oldest_allowed = timedelta(microseconds=after.config.max_age / 1000)
    if after.share < FULL or (oldest_allowed and now - after.state.first_ts > oldest_allowed - AGE_MARGIN):
        return 0
    removed = after.state.last_seq - before.state.last_seq - (after.state.messages - before.state.messages)
    return max(0, min(removed, after.state.first_seq - before.state.first_seq))


async def describe_full(bus: Bus, stream: Stream) -> str:
    """The words for a stream that refuses messages: how full it is, and the setting of its limit."""
    try:
        return f"{stream.name} takes no more: {_message(stream, await read_fill(bus, stream.name))}"
    except UnavailableError:
        return f"{stream.name} is full; {_setting(stream)} sets the limit"


async def read_fill(bus: Bus, stream: str) -> StreamFill:
    """The fill of a stream. Raises `UnavailableError` when NATS does not say."""
    try:
        answer = await bus.client.request(jetstream.stream_info(stream), b"", timeout=5.0)
        return msgspec.json.decode(answer.data, type=StreamFill)
    except (NatsError, TimeoutError, ConnectionError, msgspec.MsgspecError) as error:
        raise UnavailableError(f"{stream} was not read: {type(error).__name__}") from error
