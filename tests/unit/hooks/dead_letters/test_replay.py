"""Dead letters sent again: each user's in the order of their events, and none removed that did not arrive."""

import random
from collections.abc import Sequence
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.dead_letters.replay import Replays
from hooks.dead_letters.replay_run import ReplayReply
from hooks.dead_letters.store import DeadLetterFilter, DeadLetterStore, StoredDeadLetter
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.model import CallPolicy, Failed, Outcome, Record
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.hook import Hook
from hooks.matching.rule import HookIndex, Rule
from shared.errors import DeniedError, InvalidError, MillraceError, UnavailableError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics
from support.fakes.rules import by_target
from support.fakes.sink import NO_BACKOFF, NOW, Answer, MemorySink, RecordingDeadLetters, RecordingObserver

RULE = Rule(
    app_key="shop",
    hook_id="all",
    revision=1,
    hook=Hook(name="all", stream_name="orders", trigger_type="EVENT", event_code="*"),
)


def letter(id: int, place: int, user: str = "ann", *, hook: str = "all", cut: bool = False) -> StoredDeadLetter:
    """Return a dead letter of the `place`-th event of the stream."""
    return StoredDeadLetter(
        id=id,
        at=NOW,
        hook=hook,
        reason="rejected",
        message="m",
        source=f"EVENTS:{place}:0",
        attempts=1,
        key=user,
        cut=cut,
        body="{}",
    )


class Drawer(DeadLetterStore):
    """Dead letters in memory."""

    def __init__(self, letters: Sequence[StoredDeadLetter]) -> None:
        self.letters = {letter.id: letter for letter in letters}

    async def read(
        self, selection: DeadLetterFilter, *, after: int = 0, through: int | None = None, limit: int, max_bytes: int
    ) -> tuple[list[StoredDeadLetter], int | None]:
        assert through is not None
        found = [one for one in self.letters.values() if after < one.id <= through]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def newest(self) -> int:
        return max(self.letters, default=0)

    async def remove(self, ids: Sequence[int]) -> None:
        for id in ids:
            del self.letters[id]


async def replay(
    drawer: Drawer,
    sink: MemorySink,
    *,
    policy: CallPolicy = NO_BACKOFF,
    rules: Sequence[Rule] = (RULE,),
    after: str | None = None,
    work_s: float = 5,
    limit: int = 1000,
) -> ReplayReply:
    """Run one call of a service whose only stream is `sink`."""
    box = RecordingDeadLetters()
    async with Targets(policy, observer=RecordingObserver(), dead_letters=Counting(box), metrics=Metrics()) as targets:
        index = HookIndex(rules)
        targets.apply(index, by_target(index, {"shop": ActiveConnector(revision=1, open=lambda _: sink)}))
        replays = Replays(drawer, targets, DeliveryCounters(clock), Metrics(), clock, work_s=work_s)
        return await replays.run(
            DeadLetterFilter(app_key="shop"), after=after, limit=limit, per_second=10_000, dry_run=False
        )


class Counting:
    """An implementation of `hooks.delivery.model.DeadLetters` that counts as the real one."""

    def __init__(self, letters: RecordingDeadLetters) -> None:
        self._letters = letters

    async def put_record(self, target: object, record: Record, reason: str, message: str) -> None:
        self._letters.put.append((record.source, reason))
        record.counters.dead_lettered += 1


def clock() -> datetime:
    return NOW


def fail_whole(error: MillraceError) -> Answer:
    def answer(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        raise error

    return answer


def fail_at_random(dice: random.Random, *, retryable: bool = True) -> Answer:
    """Return an answer in which single records fail, and now and then a call, before or after it took effect."""

    def answer(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        outcomes = [
            Failed("Slow", "slow", retryable) if dice.random() < 0.3 else sink.store(record) for record in batch
        ]
        if dice.random() < 0.2:
            raise UnavailableError("no answer")
        return outcomes

    return answer


@given(seed=st.integers(0, 10**6), users=st.integers(1, 5), number=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
async def test_each_users_dead_letters_arrive_in_the_order_of_their_events(seed: int, users: int, number: int) -> None:
    dice = random.Random(seed)
    places = dice.sample(range(100), number)
    drawer = Drawer([letter(id, place, f"u{place % users}") for id, place in enumerate(places, start=1)])
    sink = MemorySink(*[fail_at_random(dice) for _ in range(30)])

    reply = await replay(drawer, sink)

    arrived: dict[str, dict[str, None]] = {}
    for record in sink.stored:
        arrived.setdefault(record.key, {}).setdefault(record.source)
    wanted: dict[str, list[str]] = {}
    for place in sorted(places):
        wanted.setdefault(f"u{place % users}", []).append(f"EVENTS:{place}:0")
    assert wanted == {user: list(sources) for user, sources in arrived.items()}
    assert ({}, number, None) == (drawer.letters, reply.sent, reply.next)


async def test_what_is_refused_again_is_removed_for_its_new_dead_letter() -> None:
    drawer = Drawer([letter(1, 1), letter(2, 2)])

    reply = await replay(drawer, MemorySink(lambda sink, batch: [Failed("Bad", "bad", retryable=False)]))

    assert (1, 1, {}) == (reply.sent, reply.dead_lettered, drawer.letters)


async def test_what_can_never_go_stays_and_holds_nothing_back() -> None:
    drawer = Drawer(
        [
            letter(1, 1, hook="entrance"),
            letter(2, 2, cut=True),
            letter(3, 3, hook="gone"),
            letter(4, 4, user="x" * (2 << 20)),
            letter(5, 5),
        ]
    )

    reply = await replay(drawer, MemorySink())

    assert (5, 1, 2, 1, 1, 0) == (
        reply.letters,
        reply.sent,
        reply.not_replayable,
        reply.inactive,
        reply.oversize,
        reply.waiting,
    )
    assert ([1, 2, 3, 4], None) == (list(drawer.letters), reply.next)


async def test_a_target_that_pauses_holds_back_all_that_is_behind() -> None:
    drawer = Drawer([letter(id, id) for id in range(1, 6)])
    never = Backoff(first_s=10**9, max_s=10**9)
    sink = MemorySink(lambda sink, batch: [sink.store(record) for record in batch], fail_whole(DeniedError("no")))

    reply = await replay(drawer, sink, policy=CallPolicy(probe=never), work_s=0.2)

    assert (1, 4, "1-5", "no") == (reply.sent, reply.waiting, reply.next, reply.last_error)
    assert [2, 3, 4, 5] == list(drawer.letters)


async def test_one_call_ends_where_the_next_begins() -> None:
    drawer = Drawer([letter(id, id) for id in range(1, 6)])
    sink = MemorySink()

    first = await replay(drawer, sink, limit=3)
    drawer.letters[6] = letter(6, 6)
    second = await replay(drawer, sink, limit=3, after=first.next)

    assert ("3-5", None) == (first.next, second.next)
    assert ([f"EVENTS:{place}:0" for place in range(1, 6)], [6]) == (
        [record.source for record in sink.stored],
        list(drawer.letters),
    )


@pytest.mark.parametrize("after", ["", "7", "-", "a-b", "1-"])
async def test_an_unknown_position_is_refused(after: str) -> None:
    targets = Targets(
        NO_BACKOFF, observer=RecordingObserver(), dead_letters=Counting(RecordingDeadLetters()), metrics=Metrics()
    )
    replays = Replays(Drawer([]), targets, DeliveryCounters(clock), Metrics(), clock)

    with pytest.raises(InvalidError) as caught:
        await replays.run(DeadLetterFilter(app_key="shop"), after=after, limit=1, per_second=1, dry_run=False)

    assert "after" == caught.value.field
