"""Calls after changes: the first at once, and one for all that come while it rests."""

import asyncio

from shared.config.change_notifier import ChangeNotifier
from support.virtual_time import run_virtually


async def test_first_change_is_told_at_once_and_the_last_one_always() -> None:
    changes, seen = 0, []
    notifier = ChangeNotifier()
    notifier.add(lambda: seen.append(changes))

    for changes in range(1, 1001):
        notifier.changed()
        if changes == 1:
            assert [1] == seen
        if changes % 100 == 0:
            await asyncio.sleep(0)
    await notifier.wait_called()

    assert 1000 == seen[-1]
    assert seen == sorted(seen)


async def test_many_changes_at_once_take_a_fifth_of_the_loop() -> None:
    calls = 0

    def arrange() -> None:
        nonlocal calls
        calls += 1
        for _ in range(100_000):
            pass

    notifier = ChangeNotifier()
    notifier.add(arrange)

    async def change() -> None:
        notifier.changed()
        await notifier.wait_called()

    await asyncio.gather(*(change() for _ in range(1000)))

    # One at once, and one for the other 999.
    assert 2 == calls


def test_wait_ends_with_the_call_of_ones_own_change() -> None:
    async def story() -> None:
        told: list[int] = []
        notifier = ChangeNotifier()
        notifier.add(lambda: told.append(len(told)))
        notifier.changed()
        await notifier.wait_called()
        notifier.changed()
        await notifier.wait_called()
        assert [0, 1] == told

    run_virtually(story())
