"""Long work in slices."""

import asyncio
import time

from shared.runtime.slices import SLICE_S, Slices


async def test_others_have_their_turn_after_each_slice() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    slices = Slices()
    for _ in range(10):
        begun = time.perf_counter()
        while time.perf_counter() - begun <= SLICE_S:
            pass
        await slices.turn()
    counting.cancel()

    assert turns >= 10


async def test_short_work_is_not_interrupted() -> None:
    interrupted = asyncio.get_running_loop().create_task(asyncio.sleep(0))

    await Slices().turn()

    assert not interrupted.done()
