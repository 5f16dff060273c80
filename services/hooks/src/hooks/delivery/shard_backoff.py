"""
The shards of one target, as its answers show them: the shard of each user, the order kept there, and the back-off.

A shard that refuses records is left alone for a while, longer each time and with full jitter, until it stores a record.
Shards are known by name from the answers alone. A target without shards counts as one shard with no name.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hooks.delivery.model import Failed, Outcome, Record, Sent
from hooks.delivery.target_health import wait_s
from shared.runtime.retry import Backoff

USERS_REMEMBERED: Final = 8192
"""Users per target whose last confirmed record is remembered for sure; as many older ones may be."""
NAMED: Final = re.compile(r"\bshardId-\d+")
"""In "Rate exceeded for shard shardId-000000000000 in stream …" (API reference, PutRecords)."""


class _ShardState:
    """A shard that refused a record. It is in back-off while there is a timer."""

    __slots__ = ("failures", "timer", "waiting")

    def __init__(self) -> None:
        self.failures = 0
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: list[Record] = []


class ShardBackoff:
    """The back-off of every shard. `resume` gets the records of a shard whose wait is over."""

    def __init__(
        self, backoff: Backoff, loop: asyncio.AbstractEventLoop, resume: Callable[[list[Record]], None]
    ) -> None:
        self._backoff = backoff
        self._loop = loop
        self._resume = resume
        self._newer: dict[str, Sent] = {}
        self._older: dict[str, Sent] = {}
        self._states: dict[str, _ShardState] = {}
        self.blocked = 0
        """Shards that take nothing at present. Only then is `hold_back` worth a call."""

    @property
    def waiting(self) -> Iterable[Record]:
        """Records that wait for a shard, each the head of its user's queue."""
        return [record for state in self._states.values() for record in state.waiting]

    def record_outcomes(self, batch: Sequence[Record], outcomes: Sequence[Outcome]) -> int:
        """Record an answer. Returns how many records were stored before an earlier one of their user."""
        newer, older = self._newer, self._older
        inversions = 0
        for record, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Sent) and outcome.shard:
                key = record.key
                last = newer.get(key) or older.get(key)
                if last is not None and outcome.shard == last.shard and not _follows(outcome.sequence, last.sequence):
                    inversions += 1
                newer[key] = outcome
        if len(newer) >= USERS_REMEMBERED:
            self._newer, self._older = {}, newer
        if self._states:
            answered = {outcome.shard for outcome in outcomes if isinstance(outcome, Sent)}
            for shard in [shard for shard in self._states if shard in answered or (answered and not shard)]:
                self._recover(shard)
        return inversions

    def record_refusals(self, refused: Sequence[tuple[Record, Failed]]) -> None:
        """Put refused records into back-off. `record_outcomes` comes first: a shard that stored some waits briefly."""
        for record, outcome in refused:
            named = NAMED.search(outcome.message)
            shard = named.group() if named else self._shard_of(record.key)
            state = self._states.setdefault(shard, _ShardState())
            state.waiting.append(record)
            if state.timer is None:
                state.failures += 1
                self.blocked += _is_blocked(state)
                state.timer = self._loop.call_later(wait_s(self._backoff, state.failures), self._end_wait, shard)

    def hold_back(self, record: Record) -> bool:
        """
        Return whether the record is kept here, because its user's shard refused everything more than once. A single
        refusal holds up no other record, since it may concern that record alone.
        """
        state = self._states.get(self._shard_of(record.key))
        if state is None or state.timer is None or not _is_blocked(state):
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

    def _recover(self, shard: str) -> None:
        state = self._states[shard]
        if state.timer is None:
            del self._states[shard]
        else:
            self.blocked -= _is_blocked(state)
            state.failures = 0

    def _end_wait(self, shard: str) -> None:
        state = self._states[shard]
        state.timer = None
        self.blocked -= _is_blocked(state)
        waiting, state.waiting = state.waiting, []
        self._resume(waiting)


def _follows(number: str, other: str) -> bool:
    """
    Return whether one sequence number is above the other. They have 56 digits or more and no leading zeros (API
    reference, PutRecordsResultEntry). Integers of them would cost more than all other work of `record_outcomes`.
    """
    return number > other if len(number) == len(other) else len(number) > len(other)


def _is_blocked(state: _ShardState) -> bool:
    return state.failures > 1
