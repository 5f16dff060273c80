"""
Child processes that never outlive the command line, and the ends of their logs when they end too soon.

The commands and their settings are in `millrace.nats_servers` and `millrace.mesh`.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from shared.errors import UnavailableError

PR_SET_PDEATHSIG = 1
"""prctl(2)."""

LAST_LINES = 12


def _die_with_parent() -> Callable[[], None] | None:
    """Return a function for a child before exec: it asks Linux for SIGKILL when this process ends, however it ends."""
    try:
        # Looked up here, because nothing may be imported or allocated for long between fork and exec.
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    parent = os.getpid()

    def set_signals() -> None:
        # An ignored signal is inherited, and a child that ignores SIGTERM ends only by SIGKILL.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have ended before the line above.
        if os.getppid() != parent:
            os._exit(1)

    return set_signals


class Child:
    """
    One process in a group of its own: Ctrl-C in the terminal reaches the command line alone, which then stops it.

    Its output goes to the log file, which is appended to. Made by `start_child`.
    """

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def wait(self) -> int:
        """The exit code; negative for a signal."""
        return await self.process.wait()

    async def stop(self, deadline_s: float) -> int:
        """SIGTERM, then SIGKILL to the whole group when it is still there after the deadline. Returns the exit code."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), deadline_s)
        except TimeoutError:
            return await self.kill()
        finally:
            # Also when the wait is cancelled: no other call would stop it.
            if self.running:
                self._signal(signal.SIGKILL)
        return await self.process.wait()

    async def kill(self) -> int:
        """SIGKILL, to the whole group."""
        self._signal(signal.SIGKILL)
        return await self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(self.pid, number)
                else:
                    self.process.send_signal(number)

    def last_lines(self) -> str:
        """The end of the log, for an error message."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        return ""

    def ended(self, doing: str) -> UnavailableError:
        """The error for an end too soon: exit code, last lines of the log, and the log's path."""
        said = "".join(f"\n  {line}" for line in self.last_lines().splitlines())
        return UnavailableError(f"{self.name} {self.exit_description()} {doing}; its log is {self.log}{said}")

    def exit_description(self) -> str:
        """Describe the exit, such as `ended with exit code 1`."""
        code = self.process.returncode
        return f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"


async def start_child(
    name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, directory: Path | None = None
) -> Child:
    """
    Start a process that dies with this one.

    Raises:
        UnavailableError: The program is not there.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=directory,
                process_group=0,
                preexec_fn=_die_with_parent(),
            )
        except OSError as error:
            raise UnavailableError(f"{name} cannot be started: {error}") from None
    return Child(name, process, log)


@contextlib.asynccontextmanager
async def child(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    stop_deadline_s: float = 5.0,
) -> AsyncIterator[Child]:
    """A process for the length of a block."""
    started = await start_child(name, command, environment=environment, log=log)
    try:
        yield started
    finally:
        await started.stop(stop_deadline_s)
