"""Messages that a full stream has dropped between two looks."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from shared.messaging.fill import StreamFill, dropped_between

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY_NS = 24 * 3600 * 10**9


def fill(
    first: int, last: int, *, size: int = 95, deleted: int = 0, oldest: timedelta = timedelta(hours=1)
) -> StreamFill:
    state = {
        "messages": last - first + 1 - deleted,
        "bytes": size,
        "first_seq": first,
        "last_seq": last,
        "first_ts": NOW - oldest,
    }
    return msgspec.convert({"config": {"max_bytes": 100, "max_age": DAY_NS}, "state": state}, StreamFill)


@pytest.mark.parametrize(
    ("before", "after", "dropped"),
    [
        (fill(1, 10), fill(1, 12), 0),
        (fill(1, 10), fill(4, 12), 3),
        # Room was made by deletion, here at the beginning and in the middle.
        (fill(1, 10), fill(4, 12, size=60), 0),
        (fill(1, 10), fill(1, 12, deleted=5), 0),
        (fill(1, 10, deleted=5), fill(9, 12), 3),
        # The oldest ones have reached the age limit of a day.
        (fill(1, 10), fill(4, 12, oldest=timedelta(hours=24)), 0),
    ],
)
def test_dropped_are_those_that_a_full_stream_had_no_room_for(
    before: StreamFill, after: StreamFill, dropped: int
) -> None:
    assert dropped == dropped_between(before, after, NOW)


def test_a_stream_without_a_limit_is_never_full() -> None:
    endless = msgspec.convert({"config": {}, "state": msgspec.to_builtins(fill(1, 10).state)}, StreamFill)

    assert (0, 0.0) == (dropped_between(endless, endless, NOW), endless.share)
