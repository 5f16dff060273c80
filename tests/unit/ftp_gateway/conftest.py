"""Fixtures of the ftp gateway's unit tests: a clock, and a spool in a directory of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ftp_gateway.spool.store import Spool
from support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Noon, until the test sets it."""
    return Clock()


@pytest.fixture
def reopen(tmp_path: Path, clock: Clock) -> Callable[[], Spool]:
    """Open the spool as another process or replica finds it."""
    return lambda: Spool(tmp_path / "spool", clock)


@pytest.fixture
def spool(reopen: Callable[[], Spool]) -> Spool:
    """The spool, opened once."""
    return reopen()
