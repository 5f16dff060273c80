"""
The shards of one target, as its answers show them: the shard of each user, the order kept there, and the back-off.

A shard that refuses records is left alone for a while, longer each time and with full jitter, until it stores a record.
A throttled shard stores some and refuses more, for ever: sent at once again, most records would only be refused again.
It gets its records in rounds of a second, in each as many as it stored in the one before, and twice as many after one
without a refusal.

Shards are known by name from the answers alone. A target without shards counts as one shard with no name.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hooks.delivery.model import Failed, Outcome, Record, Sent
from hooks.delivery.target_health import wait_s
from shared.runtime.retry import Backoff

USERS_REMEMBERED: Final = 8192
"""Users per target whose last confirmed record is remembered for sure; as many older ones may be."""
NAMED: Final = re.compile(r"\bshardId-\d+")
"""In "Rate exceeded for shard shardId-000000000000 in stream …" (API reference, PutRecords)."""


ROUND_S: Final = 1.0
"""Kinesis counts the records of a shard by the second (developer guide, Quotas and limits)."""
LEAST_QUOTA: Final = 8
THROTTLED_RECORDS: Final = 16
"""Throttled records, more than were stored meanwhile, from which on a shard gets its records in rounds."""
REPORTED_S: Final = 180.0
"""Time after which throttling is reported."""
CALM_S: Final = 60.0
"""Time without throttling after which the next one is another."""


class _ShardState:
    """
    A shard that refused a record. It is in back-off while there is a timer, and in rounds while there is a `quota`.
    `room` is how many more records the present round takes. `stored` and `throttled` are the records since the first
    refusal, or in the present round.
    """

    __slots__ = ("blocked", "failures", "quota", "room", "stored", "throttled", "timer", "waiting")

    def __init__(self) -> None:
        self.blocked = False
        self.failures = 0
        self.quota = 0
        self.room = 0
        self.stored = 0
        self.throttled = 0
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: list[Record] = []


class ShardBackoff:
    """
    The back-off of every shard.

    Args:
        resume: Called with the records of a shard whose wait is over.
        report: Called with the target's words when shards were throttled for minutes.
    """

    def __init__(
        self,
        backoff: Backoff,
        loop: asyncio.AbstractEventLoop,
        resume: Callable[[list[Record]], None],
        report: Callable[[str], None],
    ) -> None:
        self._backoff = backoff
        self._loop = loop
        self._resume = resume
        self._report = report
        self._throttled_since = self._throttled_at = -CALM_S
        self._reported = False
        self._refusal = ""
        self._newer: dict[str, Sent] = {}
        self._older: dict[str, Sent] = {}
        self._states: dict[str, _ShardState] = {}
        self.blocked = 0
        """Shards that take nothing at present. Only then is `hold_back` worth a call."""

    @property
    def waiting(self) -> Iterable[Record]:
        """Records that wait for a shard, each the head of its user's queue."""
        return [record for state in self._states.values() for record in state.waiting]

    @property
    def refusal(self) -> str | None:
        """The target's words for the last refusal; None while no record waits for a shard."""
        return self._refusal if any(state.waiting for state in self._states.values()) else None

    def record_outcomes(self, batch: Sequence[Record], outcomes: Sequence[Outcome]) -> int:
        """Record an answer. Returns how many records were stored before an earlier one of their user."""
        newer, older = self._newer, self._older
        inversions = 0
        left: list[str] = []
        for record, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Sent) and outcome.shard:
                key = record.key
                last = newer.get(key) or older.get(key)
                if last is not None:
                    if outcome.shard != last.shard:
                        left.append(last.shard)
                    elif not _follows(outcome.sequence, last.sequence):
                        inversions += 1
                newer[key] = outcome
        if len(newer) >= USERS_REMEMBERED:
            self._newer, self._older = {}, newer
        if self._states:
            answered = Counter(outcome.shard for outcome in outcomes if isinstance(outcome, Sent))
            # Users whose shard was split: what another one stores, theirs need not.
            answered.update(left)
            for shard in [shard for shard in self._states if shard in answered or (answered and not shard)]:
                self._recover(shard, answered[shard] if shard else answered.total() - len(left))
        return inversions

    def record_refusals(self, refused: Sequence[tuple[Record, Failed]]) -> None:
        """Put refused records into back-off. `record_outcomes` comes first: a shard that stored some waits briefly."""
        for record, outcome in refused:
            named = NAMED.search(outcome.message)
            shard = named.group() if named else self._shard_of(record.key)
            self._refusal = f"{outcome.code}: {outcome.message}"
            if named and record.key not in self._newer:
                # So that later records of its user wait with it.
                self._newer[record.key] = self._older.get(record.key) or Sent(shard)
            state = self._states.setdefault(shard, _ShardState())
            state.waiting.append(record)
            state.throttled += outcome.throttled
            if state.quota:
                continue
            if state.throttled > max(THROTTLED_RECORDS, state.stored):
                self._begin_rounds(shard, state)
            elif state.timer is None:
                state.failures += 1
                self._set_blocked(state, state.failures > 1)
                state.timer = self._loop.call_later(wait_s(self._backoff, state.failures), self._end_wait, shard)

    def hold_back(self, record: Record) -> bool:
        """
        Return whether the record is kept here, because its user's shard refused everything more than once. A single
        refusal holds up no other record, since it may concern that record alone.
        """
        state = self._states.get(self._shard_of(record.key))
        if state is None or not state.blocked:
            return False
        if state.room:
            state.room -= 1
            return False
        state.waiting.append(record)
        return True

    def clear(self) -> None:
        """Forget every wait and every waiting record."""
        for state in self._states.values():
            if state.timer is not None:
                state.timer.cancel()
        self._states.clear()
        self.blocked = 0

    def reset(self) -> None:
        """Resume everything, because after a change of configuration the state of shards is uncertain."""
        waiting = list(self.waiting)
        self.clear()
        self._resume(waiting)

    def _shard_of(self, key: str) -> str:
        sent = self._newer.get(key) or self._older.get(key)
        return sent.shard if sent is not None else ""

    def _recover(self, shard: str, stored: int) -> None:
        state = self._states[shard]
        state.stored += stored
        if state.quota:
            return  # The end of the round counts.
        if state.timer is None:
            del self._states[shard]
        else:
            state.failures = 0
            self._set_blocked(state, False)

    def _end_wait(self, shard: str) -> None:
        state = self._states[shard]
        state.timer = None
        self._set_blocked(state, False)
        waiting, state.waiting = state.waiting, []
        self._resume(waiting)

    def _begin_rounds(self, shard: str, state: _ShardState) -> None:
        now = self._loop.time()
        if now - self._throttled_at > CALM_S:
            self._throttled_since = now
            self._reported = False
        self._throttled_at = now
        if state.timer is not None:
            state.timer.cancel()
        state.failures = 0
        state.quota = max(LEAST_QUOTA, state.stored)
        state.stored = state.throttled = 0
        self._set_blocked(state, True)
        state.timer = self._loop.call_later(ROUND_S, self._end_round, shard)

    def _end_round(self, shard: str) -> None:
        state = self._states[shard]
        if not state.waiting and not state.throttled:
            self._set_blocked(state, False)
            del self._states[shard]
            return
        self._report_throttling()
        if state.throttled:
            state.failures = 0 if state.stored else state.failures + 1
            state.quota = max(LEAST_QUOTA, state.stored, state.quota // 2)
        elif state.stored:
            state.failures = 0
            state.quota *= 2
        state.stored = state.throttled = 0
        state.room = state.quota
        released, state.waiting = state.waiting[: state.quota], state.waiting[state.quota :]
        delay_s = max(ROUND_S, wait_s(self._backoff, state.failures) if state.failures else 0.0)
        state.timer = self._loop.call_later(delay_s, self._end_round, shard)
        self._resume(released)

    def _report_throttling(self) -> None:
        self._throttled_at = self._loop.time()
        if not self._reported and self._throttled_at - self._throttled_since >= REPORTED_S:
            self._reported = True
            self._report(self._refusal)

    def _set_blocked(self, state: _ShardState, blocked: bool) -> None:
        self.blocked += blocked - state.blocked
        state.blocked = blocked


def _follows(number: str, other: str) -> bool:
    """
    Return whether one sequence number is above the other. They have 56 digits or more and no leading zeros (API
    reference, PutRecordsResultEntry). Integers of them would cost more than all other work of `record_outcomes`.
    """
    return number > other if len(number) == len(other) else len(number) > len(other)
