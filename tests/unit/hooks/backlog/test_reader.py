"""Alerts of events that wait, and of those that waited too long."""

from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta

import pytest

from hooks.backlog.backlog import Backlog
from hooks.backlog.checkpoints import Checkpoints
from hooks.backlog.reader import BacklogReaders, EventScan
from hooks.matching.rule import Target
from shared.contracts.streams import EVENTS
from shared.messaging.bus import StreamState
from shared.messaging.kv import KeyValue
from shared.messaging.message import Message
from support.fakes.sink import NOW, TARGET


class Stream:
    """`EVENTS`, which has dropped the messages before message 10."""

    def scan(self, app_key: str, partition: int, start: int) -> AbstractAsyncContextManager[EventScan]:
        raise AssertionError

    async def state(self) -> StreamState:
        return StreamState(first_sequence=10, last_sequence=20, messages=11, bytes=1)


class Bucket:
    """A bucket that must stay unused."""

    async def get(self, key: str) -> KeyValue | None:
        raise AssertionError

    async def put(self, key: str, data: bytes, *, expect_revision: int | None = None) -> int:
        raise AssertionError

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None:
        raise AssertionError

    async def scan(self, keys: str = ">") -> list[KeyValue]:
        raise AssertionError


class Heard:
    """Observer that keeps the targets that are far behind."""

    def __init__(self) -> None:
        self.far: list[Target] = []

    def far_behind(self, target: Target, since: datetime) -> None:
        self.far.append(target)

    def caught_up(self, target: Target) -> None:
        raise AssertionError

    def lost(self, target: Target, events: int) -> None:
        raise AssertionError


def shared(heard: Heard) -> BacklogReaders:
    return BacklogReaders(Stream(), Checkpoints(Bucket()), observer=heard, clock=lambda: NOW)


def backlog(start: int, behind: int = 0) -> Backlog:
    return Backlog(key="k", target=TARGET, behind={"hook": behind}, start=start, missed=20)


@pytest.mark.parametrize(("start", "behind", "lost"), [(5, 3, 3), (5, 0, 0), (10, 3, 0), (12, 3, 0)])
async def test_events_are_lost_when_some_are_left_over_and_the_stream_has_forgotten_their_time(
    start: int, behind: int, lost: int
) -> None:
    assert lost == await shared(Heard()).lost_of(backlog(start, behind))


@pytest.mark.parametrize(("part", "told"), [(0.4, []), (0.6, [TARGET])])
async def test_a_lag_is_reported_when_half_of_the_time_is_over(part: float, told: list[Target]) -> None:
    heard = Heard()
    found = backlog(5)
    at = NOW - timedelta(seconds=part * EVENTS.max_age_s)
    found.window.add(Message("events.shop.0", b"", sequence=5, at_ns=int(at.timestamp() * 1e9)))

    shared(heard).check_age(found)

    assert told == heard.far


async def test_the_lag_of_a_hook_is_that_of_all_partitions() -> None:
    backlog_readers = shared(Heard())
    backlog_readers.backlogs |= {backlog(1, 3), backlog(1, 4)}

    assert 7 == backlog_readers.lag_of("shop", "hook")
    assert backlog_readers.lag_of("rival", "hook") is None
    assert backlog_readers.lag_of("shop", "other") is None
    assert 1 == backlog_readers.targets
