"""A clock for what takes one."""

from datetime import UTC, datetime

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Clock:
    """The time is what a test says; noon at first."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now
