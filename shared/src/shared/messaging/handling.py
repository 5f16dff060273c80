"""
Handling of a stream, one message after the other: the NATS translation of errors for consumers.

- the handler returns: the effect is durable, so the message is acknowledged;
- a retryable error: the message is tried again after a back-off, before any later one, so that the order holds;
- any other `MillraceError`: `store_dead_letter` makes it a dead letter (durable), then it is acknowledged;
- any other exception is a bug: logged, counted, tried `BUG_ATTEMPTS` times, then made a dead letter.

Messages arrive by `shared.messaging.pull`. Nothing of any service is here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from shared.errors import MillraceError, UnavailableError
from shared.messaging.message import Message
from shared.messaging.pull import ClosedError, Pull
from shared.runtime.retry import Backoff

log = structlog.get_logger()

BUG_ATTEMPTS = 5
"""Attempts at a message that runs into a bug of ours, before it becomes a dead letter."""

HANDLER_BACKOFF = Backoff(first_s=0.1, max_s=10.0)

Handler = Callable[[Message], Awaitable[None]]
StoreDeadLetter = Callable[[Message, MillraceError], Awaitable[None]]


async def consume(
    pull: Pull,
    consumer: str,
    handler: Handler,
    store_dead_letter: StoreDeadLetter,
    *,
    backoff: Backoff = HANDLER_BACKOFF,
) -> None:
    """Run `handler` for one message after the other until the pull is closed."""
    done: Message | None = None
    with contextlib.suppress(ClosedError):
        while True:
            for message in await pull.next(64):
                outcome = await _handle(pull, message, handler, store_dead_letter, backoff)
                if outcome is None:
                    pull.close()
                    break
                await pull.ack(message)
                done = message
                pull.metrics.count("millrace_bus_consumed_total", consumer=consumer, outcome=outcome)
                pull.metrics.gauge("millrace_bus_lag_messages", message.pending, consumer=consumer)
    if done is not None:
        # The acks before this one went without an answer; the last says whether all of them arrived.
        try:
            await pull.ack_sync(done)
        except UnavailableError as error:
            log.warning("last_ack_failed", consumer=consumer, sequence=done.sequence, message=error.message)


async def _handle(
    pull: Pull, message: Message, handler: Handler, store_dead_letter: StoreDeadLetter, backoff: Backoff
) -> str | None:
    """The outcome of a message, or None when the pull was closed before there was one."""
    bugs = 0
    for delay_s in backoff.delays():
        if pull.closed:
            return None
        try:
            if bugs >= BUG_ATTEMPTS:
                await store_dead_letter(message, MillraceError("internal error"))
                return "bug"
            return await _try(message, handler, store_dead_letter)
        except MillraceError as error:
            log.warning("message_handling_failed", subject=message.subject, code=error.code, message=error.message)
            await asyncio.sleep(error.retry_after_s or delay_s)
        except Exception:
            log.exception("message_handler_crashed", subject=message.subject, sequence=message.sequence)
            pull.metrics.count("millrace_bugs_total", where="consumer")
            bugs += 1
            await asyncio.sleep(delay_s)
    return None


async def _try(message: Message, handler: Handler, store_dead_letter: StoreDeadLetter) -> str:
    try:
        await handler(message)
    except MillraceError as error:
        if error.retryable:
            raise
        await store_dead_letter(message, error)
        return "dead_letter"
    return "done"
