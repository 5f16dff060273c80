"""The lag of an export: the events behind its cursor, and the age of the oldest of them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog
from msgspec import Struct

from exporter.exports.progress import ExportProgress
from exporter.pipeline.lane import Lane
from exporter.pipeline.source import EventSource, total_of
from shared.errors import MillraceError, NotFoundError
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

MEASURED_EVERY_S: Final = 30.0
LaneKey = tuple[str, str, Lane]
"""The app, the export and one lane of it."""


class ExportLag(Struct, frozen=True, kw_only=True):
    """
    Events of the app behind an export's cursor, of whatever kind.

    `messages` is their number of messages, and `events` that of events: exact for the first thousand messages, and an
    estimate from these where there are more. `seconds` is the age of the oldest, 0 where nothing waits.
    """

    messages: int
    events: int
    is_estimate: bool
    seconds: float
    oldest_at: datetime | None


async def lag_of(source: EventSource, app_key: str, lanes: Mapping[Lane, ExportProgress], now: datetime) -> ExportLag:
    """
    The lag of one export, whichever processes run its lanes.

    Raises:
        NotFoundError: It has no progress yet.
    """
    if not lanes:
        raise NotFoundError("the export has not begun yet")
    found = [await source.waiting(app_key, after=progress.passed, lane=lane) for lane, progress in lanes.items()]
    waiting = total_of(found)
    return ExportLag(
        messages=waiting.messages,
        events=waiting.events,
        is_estimate=waiting.is_estimate,
        seconds=round(_age_s(waiting.oldest_ns, now), 3) if waiting.oldest_ns else 0.0,
        oldest_at=datetime.fromtimestamp(waiting.oldest_ns / 1e9, UTC) if waiting.oldest_ns else None,
    )


class LagMeter:
    """
    The age of the oldest event that any export of this process waits with, as a metric.

    An export costs a request when it has moved and the stream goes on behind it; an idle one costs nothing.

    Args:
        cursors: Returns the cursors of the lanes of exports.
    """

    def __init__(
        self,
        source: EventSource,
        cursors: Callable[[], Mapping[LaneKey, int]],
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._cursors = cursors
        self._clock = clock
        self._metrics = metrics
        self._oldest: dict[LaneKey, tuple[int, int]] = {}
        """The position of the oldest waiting message and its time; 0 for none up to that position."""

    async def run(self) -> None:
        """Measure every 30 s, until cancelled."""
        while True:
            try:
                await self.measure()
            except MillraceError as error:
                log.warning("lag_measuring_failed", message=error.message)
            await asyncio.sleep(MEASURED_EVERY_S)

    async def measure(self) -> None:
        """Measure once. Raises `UnavailableError`."""
        last_sequence = (await self._source.state()).last_sequence
        cursors = self._cursors()
        self._oldest = {key: known for key, known in self._oldest.items() if key in cursors}
        for key, cursor in cursors.items():
            sequence, at_ns = self._oldest.get(key, (0, 0))
            if at_ns and sequence > cursor:
                continue
            looked_to = max(cursor, sequence)
            found = None
            if looked_to < last_sequence:
                found = await self._source.oldest(key[0], after=looked_to, lane=key[2])
            self._oldest[key] = found or (max(looked_to, last_sequence), 0)
        now = self._clock()
        ages = (_age_s(at_ns, now) for _, at_ns in self._oldest.values() if at_ns)
        self._metrics.gauge("millrace_export_lag_seconds", max(ages, default=0.0))


def _age_s(at_ns: int, now: datetime) -> float:
    return max(0.0, now.timestamp() - at_ns / 1e9)
