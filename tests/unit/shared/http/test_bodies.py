"""The rate of a body, and the number of its values."""

import asyncio

import pytest

from shared.errors import InvalidError, TooLargeError
from shared.http.bodies import JSON_VALUES, TransferRate, check_json_values


async def test_slow_body_is_refused() -> None:
    async def trickle() -> None:
        async with TransferRate(grace_s=0.05, bytes_per_s=1000) as rate:
            rate.add(10)
            await asyncio.Event().wait()

    with pytest.raises(InvalidError, match="more slowly than 1000 bytes per second"):
        await trickle()


async def test_body_above_the_lowest_rate_is_not_refused() -> None:
    async with TransferRate(grace_s=0.2, bytes_per_s=1) as rate:
        for _ in range(10):
            await asyncio.sleep(0.04)
            rate.add(100)


@pytest.mark.parametrize("value", [b"1", b"[]", b"{}", b'""'])
def test_values_of_a_json_body_are_counted_before_they_are_made(value: bytes) -> None:
    check_json_values(b"[" + b",".join([value] * (JSON_VALUES // 3)) + b"]")

    with pytest.raises(TooLargeError, match="at most 20000 values"):
        check_json_values(b"[" + b",".join([value] * (JSON_VALUES + 1)) + b"]")
