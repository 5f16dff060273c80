"""Replays of dead letters: one at a time for each app, bounded in time and memory."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from hooks.dead_letters.replay_run import ReplayReply, ReplayRun
from hooks.dead_letters.store import DeadLetterFilter, DeadLetterStore
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import Targets
from shared.errors import ConflictError, InvalidError
from shared.runtime.telemetry import Metrics

READ_BYTES = 8 << 20
"""Approximate size of the dead letters that one call holds in memory."""
WORK_S = 25.0
"""Most time that one call takes, because a client waits for its answer."""


class Replays:
    """Runs one replay of an app at a time. An intake of the service: it is closed and joined at a stop."""

    def __init__(
        self,
        letters: DeadLetterStore,
        targets: Targets,
        delivery_counters: DeliveryCounters,
        metrics: Metrics,
        clock: Callable[[], datetime],
        *,
        work_s: float = WORK_S,
    ) -> None:
        self._store = letters
        self._targets = targets
        self._delivery_counters = delivery_counters
        self._metrics = metrics
        self._clock = clock
        self._work_s = work_s
        self._running: dict[str, ReplayRun | None] = {}
        self._ended = asyncio.Event()
        self._closed = False

    async def run(
        self, selection: DeadLetterFilter, *, after: str | None, limit: int, per_second: float, dry_run: bool
    ) -> ReplayReply:
        """
        Send up to `limit` dead letters again, not faster than `per_second`.

        Those of one user go in the order of their events, as far as one call reads them. A call reads about 8 MiB and
        takes 25 s at most; `next` is the position from which the next one continues.

        Raises:
            ConflictError: A replay of the app is running.
            InvalidError: `after` is not the `next` of an earlier answer.
        """
        if selection.app_key in self._running:
            raise ConflictError("a replay of this app is running")
        self._running[selection.app_key] = None
        try:
            start, through = _parse(after) if after is not None else (0, await self._store.newest())
            letters, following = await self._store.read(
                selection, after=start, through=through, limit=limit, max_bytes=READ_BYTES
            )
            replay = self._running[selection.app_key] = ReplayRun(
                selection.app_key, self._store, self._targets, self._clock
            )
            if self._closed:
                replay.close()
            if dry_run:
                replay.count(letters)
            else:
                try:
                    await replay.send(letters, per_second, self._work_s)
                finally:
                    self._count(selection.app_key, replay)
            return replay.reply(len(letters), following, through)
        finally:
            del self._running[selection.app_key]
            self._ended.set()

    def close(self) -> None:
        """Send no more records."""
        self._closed = True
        for replay in self._running.values():
            if replay is not None:
                replay.close()

    async def join(self) -> None:
        """Wait until no replay runs."""
        while self._running:
            self._ended.clear()
            await self._ended.wait()

    def _count(self, app_key: str, replay: ReplayRun) -> None:
        for hook_id, sent in replay.sent_of.items():
            self._delivery_counters.of(app_key, hook_id).replayed += sent
        for outcome, records in (("sent", replay.sent), ("dead_lettered", replay.dead_lettered)):
            self._metrics.count("millrace_hooks_replayed_total", records, outcome=outcome)


def _parse(after: str) -> tuple[int, int]:
    number, _, through = after.partition("-")
    if not (number.isdecimal() and through.isdecimal()):
        raise InvalidError("expected `next` of an earlier answer", field="after")
    return int(number), int(through)
