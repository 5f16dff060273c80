"""An app alone gets all, n apps get 1/n each, and one that holds everything delays no newcomer."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.errors import BusyError
from shared.runtime.fair_share import FairShare

APPS = ("one", "two", "three", "four")


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(8):
        await asyncio.sleep(0)


class Holder:
    """A task that asks for units and holds them until `end`. `log` tells the order of the grants."""

    def __init__(self, share: FairShare, app_key: str, units: int = 1, log: "list[Holder] | None" = None) -> None:
        self.app_key = app_key
        self.units = units
        self.holding = False
        self.refused: BusyError | None = None
        self._log = log if log is not None else []
        self._done = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(share))

    async def _hold(self, share: FairShare) -> None:
        try:
            async with share.hold(self.app_key, self.units):
                self.holding = True
                self._log.append(self)
                await self._done.wait()
        except BusyError as refused:
            self.refused = refused
        finally:
            self.holding = False

    def let_go(self) -> None:
        self._done.set()

    async def end(self) -> None:
        self.let_go()
        await settle()


def holding(holders: Iterable[Holder]) -> Counter[str]:
    return Counter(holder.app_key for holder in holders if holder.holding)


async def test_an_app_alone_gets_the_whole_capacity_and_no_more() -> None:
    share = FairShare(4, name="jobs", reserve=4)
    holders = [Holder(share, "a") for _ in range(10)]
    await settle()

    assert holding(holders) == {"a": 4}
    for holder in holders:
        await holder.end()
    assert all(holder.task.done() and holder.refused is None for holder in holders)


async def test_an_app_that_holds_all_delays_no_newcomer() -> None:
    share = FairShare(4, name="jobs", reserve=2)
    silent = [Holder(share, "silent") for _ in range(8)]
    others = [Holder(share, app_key) for app_key in ("b", "c")]
    more = Holder(share, "b")
    await settle()

    assert holding(silent) == {"silent": 4}
    assert holding(others) == {"b": 1, "c": 1}
    assert not more.holding
    for holder in (*others, more, *silent):
        await holder.end()


async def test_what_becomes_free_goes_to_the_app_that_holds_least() -> None:
    share = FairShare(6, name="jobs")
    first = [Holder(share, "a") for _ in range(12)]
    await settle()
    second = [Holder(share, "b") for _ in range(12)]
    third = [Holder(share, "c") for _ in range(12)]
    for holder in first[:6]:
        await holder.end()

    assert holding([*first, *second, *third]) == {"b": 2, "c": 2, "a": 2}
    for holder in (*first, *second, *third):
        await holder.end()


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 4), st.integers(1, 3), st.lists(st.integers(0, 1000), max_size=30))
async def test_n_apps_with_work_hold_one_nth_each(apps: int, each: int, ends: list[int]) -> None:
    share = FairShare(apps * each, name="jobs", reserve=apps)
    holders: list[Holder] = []
    # The first one holds all when the others come.
    for app_key in APPS[:apps]:
        holders += [Holder(share, app_key) for _ in range(apps * each + 40)]
        await settle()
    for holder in [holder for holder in holders if holder.holding]:
        await holder.end()
    for number in ends:
        held = [holder for holder in holders if holder.holding]
        await held[number % len(held)].end()

    assert holding(holders) == dict.fromkeys(APPS[:apps], each)
    for holder in holders:
        holder.let_go()
    await asyncio.gather(*(holder.task for holder in holders))


async def test_units_are_waited_for_in_turn_so_that_small_ones_starve_no_large_one() -> None:
    share = FairShare(100, name="uploads")
    first, large, small = (
        Holder(share, app_key, units) for app_key, units in (("a", 60), ("large", 90), ("small", 10))
    )
    await settle()
    assert [False, False] == [large.holding, small.holding]

    await first.end()
    assert [True, True] == [large.holding, small.holding]
    for holder in (large, small):
        await holder.end()


async def test_more_than_the_capacity_is_held_alone() -> None:
    share = FairShare(100, name="uploads")
    huge = Holder(share, "a", 1000)
    await settle()
    other = Holder(share, "b", 1)
    await settle()

    assert [True, False] == [huge.holding, other.holding]
    await huge.end()
    assert other.holding
    await other.end()


async def test_over_the_largest_number_of_waiters_the_app_with_most_is_refused() -> None:
    share = FairShare(1, name="jobs", waiting=4, retry_after_s=7.0)
    many = [Holder(share, "many") for _ in range(5)]
    await settle()
    one_more = Holder(share, "many")
    few = [Holder(share, "few") for _ in range(2)]
    await settle()

    assert one_more.refused is not None
    assert one_more.refused.message == "the app has too many jobs in progress"
    assert one_more.refused.retry_after_s == 7.0
    assert [None, None] == [holder.refused for holder in few]
    assert [False, False, False, True, True] == [holder.refused is not None for holder in many]

    # Each has two waiters now: the next one that comes is the one too many.
    last = Holder(share, "few")
    await settle()
    assert last.refused is not None
    for holder in (*many, *few):
        await holder.end()


async def test_a_wait_ends_after_its_time() -> None:
    share = FairShare(1, name="jobs", wait_s=0.01)
    first, second = Holder(share, "a"), Holder(share, "a")
    await second.task

    assert second.refused is not None
    assert share.waiting("a") == 0
    await first.end()
    assert share.held("a") == 0


@pytest.mark.parametrize("turns", range(6))
async def test_a_waiter_that_is_cancelled_about_when_it_is_granted_gives_its_units_back(turns: int) -> None:
    share = FairShare(1, name="jobs")
    first, second, third = (Holder(share, "a") for _ in range(3))
    await settle()
    first.let_go()
    for _ in range(turns):
        await asyncio.sleep(0)
    second.task.cancel()
    await settle()

    assert third.holding
    await third.end()
    assert share.held("a") == 0


async def test_units_are_taken_without_a_wait() -> None:
    share = FairShare(100, name="bytes", reserve=30, floor=20)

    assert share.take("a", 100)
    assert not share.take("a", 1)
    assert share.take("b", 15)
    assert not share.take("b", 6)
    assert share.take("c", 15)
    assert not share.take("d", 1)
    share.release("a", 100)
    assert share.take("b", 70)


async def test_units_are_counted_for_a_block_and_refused_to_the_app_that_has_too_many() -> None:
    share = FairShare(100, name="bytes", reserve=20, floor=20, retry_after_s=3.0)

    with share.counting("a") as count:
        count(60)
        count(40)
        with pytest.raises(BusyError, match="the app has too many bytes in progress") as refused:
            count(1)
        assert refused.value.retry_after_s == 3.0
        with share.counting("b") as other:
            other(20)
    assert share.take("c", 100)


class FairShareMachine(RuleBasedStateMachine):
    """Any order of arrivals, ends and cancellations, against what the share promises."""

    @initialize(
        capacity=st.integers(1, 8), reserve=st.integers(0, 4), floor=st.integers(1, 3), waiting=st.integers(0, 6)
    )
    def open(self, capacity: int, reserve: int, floor: int, waiting: int) -> None:
        self.runner = asyncio.Runner()
        self.capacity, self.reserve, self.floor, self.most = capacity, reserve, floor, waiting
        self.share = FairShare(capacity, name="jobs", reserve=reserve, floor=floor, waiting=waiting)
        self.granted: list[Holder] = []
        self.held: list[Holder] = []
        self.waiting: list[Holder] = []

    def units_of(self, app_key: str) -> int:
        return sum(min(holder.units, self.capacity) for holder in self.held if holder.app_key == app_key)

    def fits(self, holder: Holder) -> bool:
        units = min(holder.units, self.capacity)
        total = sum(min(one.units, self.capacity) for one in self.held) + units
        within_floor = self.units_of(holder.app_key) + units <= self.floor
        return total <= self.capacity or (within_floor and total <= self.capacity + self.reserve)

    def heads(self) -> list[Holder]:
        """The first waiter of each app that holds least of those that wait."""
        first = {holder.app_key: holder for holder in reversed(self.waiting)}
        least = min(map(self.units_of, first), default=0)
        return [holder for app_key, holder in first.items() if self.units_of(app_key) == least]

    def step(self) -> None:
        """Let the tasks run; check every grant and every refusal in its order."""
        self.runner.run(settle())
        for holder in self.granted:
            assert holder in self.heads()
            assert self.fits(holder)
            self.waiting.remove(holder)
            self.held.append(holder)
        self.granted.clear()
        for holder in [holder for holder in self.waiting if holder.refused is not None]:
            waiting = Counter(one.app_key for one in self.waiting)
            assert waiting[holder.app_key] * len(waiting) > self.most
            assert waiting[holder.app_key] == max(waiting.values())
            self.waiting.remove(holder)

    @rule(app_key=st.sampled_from(APPS), units=st.integers(1, 9))
    def arrive(self, app_key: str, units: int) -> None:
        async def arrive() -> Holder:
            return Holder(self.share, app_key, units, self.granted)

        self.waiting.append(self.runner.run(arrive()))
        self.step()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.held))
        self.held.remove(holder)
        holder.let_go()
        self.step()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def cancel_at_work(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.held))
        self.held.remove(holder)
        holder.task.cancel()
        self.step()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(holder)
        holder.task.cancel()
        self.step()

    @precondition(lambda self: self.waiting and self.held)
    @rule(data=st.data(), turns=st.integers(0, 4))
    def end_and_cancel(self, data: st.DataObject, turns: int) -> None:
        """A waiter is cancelled at about the moment in which something becomes free for it."""
        ended, cancelled = data.draw(st.sampled_from(self.held)), data.draw(st.sampled_from(self.waiting))
        ended.let_go()

        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled.task.cancel()
            await settle()

        self.runner.run(turn())
        self.granted.clear()
        # Lists: an order that differs from run to run would choose other holders.
        others = [holder for holder in (*self.held, *self.waiting) if holder not in (ended, cancelled)]
        self.waiting = [holder for holder in self.waiting if holder in others and not holder.holding]
        self.held = [holder for holder in others if holder.holding]

    @invariant()
    def the_share_counts_what_is_held_and_waited_for(self) -> None:
        for app_key in APPS:
            assert self.share.held(app_key) == self.units_of(app_key)
            assert self.share.waiting(app_key) == sum(holder.app_key == app_key for holder in self.waiting)
        assert sum(map(self.units_of, APPS)) <= self.capacity + self.reserve
        assert len(self.waiting) <= self.most

    @invariant()
    def nothing_lies_idle(self) -> None:
        heads = self.heads()
        assert not heads or not all(map(self.fits, heads))

    def teardown(self) -> None:
        """Every waiter gets its turn once the others end."""
        while self.held:
            self.held.pop(0).let_go()
            self.step()
        assert not self.waiting
        assert self.share.take("last", self.capacity)
        self.runner.close()


TestFairShare = FairShareMachine.TestCase
TestFairShare.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
