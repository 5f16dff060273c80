"""The ack floor of a partition, and the bound on what is not acknowledged."""

import asyncio

import pytest

from hooks.delivery.ack_window import AckWindow, Bounds, PendingMessage
from hooks.delivery.counters import HookCounters
from hooks.delivery.model import Record
from shared.messaging.message import Message
from support.fakes.sink import NOW, make_record


@pytest.fixture
def window() -> AckWindow:
    return AckWindow(Bounds(records=3, bytes=100, messages=4))


def add(window: AckWindow, sequence: int, *sizes: int) -> tuple[PendingMessage, list[Record]]:
    """A message with a record of each of these sizes."""
    taken = window.add(Message("events.shop.0", b"[]", sequence=sequence, at_ns=0))
    records = [
        make_record(
            key="k",
            data=b"x" * (size - 1),
            hook_id="hook",
            source=f"EVENTS:{sequence}:{index}",
            counters=HookCounters(lambda: NOW),
            done=taken,
        )
        for index, size in enumerate(sizes)
    ]
    for record in records:
        taken.expect(record)
    taken.close()
    return taken, records


def floor_of(window: AckWindow) -> int | None:
    return window.floor.sequence if window.floor else None


def test_a_message_that_matched_nothing_moves_the_floor_at_once(window: AckWindow) -> None:
    add(window, 5)

    assert 5 == floor_of(window)


def test_the_floor_moves_by_the_contiguous_prefix_only(window: AckWindow) -> None:
    _, (first,) = add(window, 5, 10)
    _, (second,) = add(window, 8, 10)
    _, (third,) = add(window, 9, 10)

    third.done(third)
    second.done(second)
    assert floor_of(window) is None
    first.done(first)
    assert 9 == floor_of(window)


def test_a_message_is_complete_with_its_last_record(window: AckWindow) -> None:
    _, (first, second) = add(window, 5, 10, 10)

    first.done(first)
    assert floor_of(window) is None
    second.done(second)
    assert 5 == floor_of(window)


def test_a_message_that_is_still_being_read_is_not_complete(window: AckWindow) -> None:
    taken = window.add(Message("events.shop.0", b"[]", sequence=5, at_ns=0))

    assert floor_of(window) is None
    taken.close()
    assert 5 == floor_of(window)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (100,)])
def test_records_and_bytes_fill_it_and_finished_ones_make_room(window: AckWindow, sizes: tuple[int, ...]) -> None:
    _, records = add(window, 5, *sizes)

    assert window.full
    records[0].done(records[0])
    assert not window.full


def test_messages_behind_an_open_one_fill_it(window: AckWindow) -> None:
    _, (record,) = add(window, 1, 1)
    for sequence in (2, 3, 4):
        add(window, sequence)

    assert window.full
    record.done(record)
    assert not window.full


async def test_waiting_ends_with_room_or_when_it_is_closed(window: AckWindow) -> None:
    _, records = add(window, 5, 1, 1, 1)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(window.wait_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        records[0].done(records[0])
    assert await waiting

    add(window, 6, 1)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(window.wait_room())
        await asyncio.sleep(0)
        window.close()
    assert not await waiting


def test_the_oldest_is_the_first_message_that_is_not_complete(window: AckWindow) -> None:
    assert window.oldest_ns is None
    taken = [window.add(Message("events.shop.0", b"[]", sequence=at, at_ns=at)) for at in (5, 6)]

    assert 5 == window.oldest_ns
    taken[0].close()
    assert 6 == window.oldest_ns
    taken[1].close()
    assert window.oldest_ns is None
