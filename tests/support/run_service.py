"""The type of the fixture `run_service`. No test lives here."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from shared.service import Running, Service

RunService = Callable[[Service], AbstractAsyncContextManager[Running]]
"""Runs a service inside the test, for as long as the block."""
