"""Run of the demo as a list of steps: each is timed, printed, and a row of the last table. `steps` has their work."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from millrace.terminal.console import Console
from shared.errors import MillraceError

log = structlog.get_logger()

STEP_S = 60.0
"""A step that takes longer hangs; the whole demo takes less."""


class StepResult(Struct, frozen=True, kw_only=True):
    """Expected and actual result of a step. `details` are further lines to print."""

    expected: str
    got: str
    ok: bool
    details: tuple[str, ...] = ()


class StepRow(Struct, frozen=True, kw_only=True):
    """A row of the table."""

    name: str
    ok: bool
    expected: str
    got: str
    seconds: float


def equal(expected: str, got: str, *details: str) -> StepResult:
    """The result of a step that must be exactly the expected one."""
    return StepResult(expected=expected, got=got, ok=expected == got, details=details)


class StepError(Exception):
    """A step could not be carried out, so the run ends. Its row says why."""


class DemoRun:
    """Runs steps, prints each, and keeps its row of the table."""

    def __init__(self, console: Console) -> None:
        self.steps: list[StepRow] = []
        self._console = console

    @property
    def ok(self) -> bool:
        return all(step.ok for step in self.steps)

    async def step(self, name: str, work: Callable[[], Awaitable[StepResult]]) -> None:
        """
        Run one step and print its result.

        Raises:
            StoryError: It could not be carried out.
        """
        started = time.monotonic()
        broken = False
        try:
            with self._console.spinner(f"{name} …"):
                async with asyncio.timeout(STEP_S):
                    outcome = await work()
        except TimeoutError:
            broken, outcome = True, _failed(f"not done within {STEP_S:.0f} s")
        except MillraceError as error:
            broken, outcome = True, _failed(f"{error.field}: {error}" if error.field else str(error))
        except Exception as error:
            # A demo that ends in a traceback does not say which step it was.
            log.exception("step_failed", step=name)
            broken, outcome = True, _failed(f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - started
        self.steps.append(
            StepRow(name=name, ok=outcome.ok, expected=outcome.expected, got=outcome.got, seconds=round(seconds, 3))
        )
        self._console.result(outcome.ok, f"{seconds:5.1f} s  {name}: {outcome.got}")
        for line in outcome.details:
            self._console.print_line(f"                   {line}", style="dim")
        if broken:
            raise StepError(name)

    def show_table(self) -> None:
        """Print the table of every step."""
        rows = [(step.name, step.expected, step.got, f"{step.seconds:.1f} s", step.ok) for step in self.steps]
        self._console.table(("step", "expected", "got", "time", "ok"), rows)


def _failed(reason: str) -> StepResult:
    return StepResult(expected="to be carried out", got=reason, ok=False)
