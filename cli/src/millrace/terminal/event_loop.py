"""Event loop of a verb, and the signals that end it. The only place of the command line that starts an event loop."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

from shared.errors import MillraceError
from shared.runtime import logs


def run_async(work: Coroutine[Any, Any, int]) -> int:
    """
    Run to the end and return the exit code.

    Ctrl-C, SIGTERM and a closed terminal cancel the work, so that every block closes what it opened, children too; that
    returns 128 + the signal's number. A second signal ends this process at once, and the kernel ends the children.

    Raises:
        MillraceError: The first one, where several parts failed together.
    """
    ended_by: list[signal.Signals] = []

    async def whole() -> int:
        task = asyncio.current_task()
        assert task is not None

        def end(number: signal.Signals) -> None:
            if ended_by:
                os._exit(128 + number)
            ended_by.append(number)
            task.cancel(number.name)

        for number in _signals():
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        return await work

    # What a library has to say of a connection that is tried again is no news to an operator.
    logs.configure(service="millrace", level="error", format="console")
    try:
        return asyncio.run(whole())
    except asyncio.CancelledError:
        return 128 + ended_by[0] if ended_by else 1
    except ExceptionGroup as group:
        raise first_error(group) from group


def _signals() -> tuple[signal.Signals, ...]:
    # A shell lets its background jobs ignore SIGINT, but one that is sent by name is meant; `nohup` means what it says.
    ignores_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignores_hangup else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def first_error(group: ExceptionGroup[Exception]) -> Exception:
    """The error to show of several: the first that was meant for a person, else the first bug."""
    expected = group.subgroup(MillraceError)
    leaf: Exception = expected if expected is not None else group
    while isinstance(leaf, ExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf
