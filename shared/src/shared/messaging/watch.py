"""
Watches of key-value buckets, opened anew for as long as the service lives.

`watch_entries` keeps a copy of a bucket current, `watch_changes` follows the changes from now on. Both hand messages
over in the order of the bucket, deletions included (`is_deletion`). A message may come a second time after a restart:
the reader compares revisions.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NoReturn

import structlog

from shared.contracts.streams import Bucket
from shared.errors import MillraceError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.kv import read_present
from shared.messaging.message import Message
from shared.messaging.pull import Pull
from shared.runtime.retry import Backoff

log = structlog.get_logger()

RETRY: Final = Backoff(first_s=0.2, max_s=10.0)
AT_ONCE: Final = 1024
"""Messages that are handed over together at most."""

Apply = Callable[[Sequence[Message]], Awaitable[None]]
"""Applies messages in their order. A `MillraceError` from it opens the watch anew, after a wait."""


def _nothing(*_: object) -> None:
    """Do nothing; default of a callback."""


async def watch_entries(
    bus: Bus,
    bucket: Bucket,
    keys: str,
    on_messages: Apply,
    *,
    known: Callable[[], Iterable[str]] = tuple,
    drop: Callable[[str], None] = _nothing,
    listed: Callable[[], None] = _nothing,
    relist_s: float | None = None,
    retry: Backoff = RETRY,
) -> NoReturn:
    """
    Hand over every entry whose key matches, then every change, for ever.

    A key that was removed without a marker, by its age or a purge, sends no message. The next full read misses it.

    Args:
        keys: A filter (`*` one token, `>` the rest).
        known: Keys that the reader has. Asked before a full read: what the reader writes meanwhile is not dropped.
        drop: Called for each of those that the full read did not find.
        listed: Called after every full read.
        relist_s: How long until the bucket is read in full again, because watches have been seen to die silently. None:
            only after a failure.
    """
    subject = bucket.subject_of(keys)

    async def watch(succeeded: Callable[[], None]) -> None:
        before = set(known())
        seen: set[str] = set()
        async with open_scan(bus, bucket, subject=subject, last_per_subject=True) as scan:
            async for message in read_present(bus, bucket, subject, scan):
                await on_messages((message,))
                seen.add(bucket.key_of(message.subject))
            for key in before - seen:
                drop(key)
            listed()
            succeeded()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(relist_s):
                    await _hand_over(scan, on_messages, AT_ONCE)

    await _reopen(watch, bucket, keys, retry, _nothing)


async def watch_changes(
    bus: Bus,
    bucket: Bucket,
    keys: str,
    on_messages: Apply,
    *,
    opened: Callable[[Pull], None],
    failed: Callable[[], None],
    capacity: int,
    capacity_bytes: int,
    retry: Backoff = RETRY,
) -> NoReturn:
    """
    Hand over every change of the keys that match, for ever, and nothing of before.

    Args:
        opened: Called when changes are followed from now on, each time with another scan.
        failed: Called when the watch has ended. Changes until it is `opened` again are not handed over.
        capacity: Messages on their way to this watch at most.
        capacity_bytes: Bytes of those messages.
    """

    async def watch(succeeded: Callable[[], None]) -> None:
        state = await bus.stream_state(bucket)
        async with open_scan(
            bus,
            bucket,
            subject=bucket.subject_of(keys),
            start_sequence=state.last_sequence + 1,
            capacity=capacity,
            capacity_bytes=capacity_bytes,
        ) as scan:
            opened(scan)
            succeeded()
            await _hand_over(scan, on_messages, capacity)

    await _reopen(watch, bucket, keys, retry, failed)


async def _hand_over(scan: Pull, on_messages: Apply, most: int) -> NoReturn:
    while True:
        await on_messages(await scan.next(most))


async def _reopen(
    watch: Callable[[Callable[[], None]], Awaitable[None]],
    bucket: Bucket,
    keys: str,
    retry: Backoff,
    failed: Callable[[], None],
) -> NoReturn:
    waits = iter(retry.delays())

    def succeeded() -> None:
        nonlocal waits
        waits = iter(retry.delays())

    while True:
        try:
            await watch(succeeded)
        except MillraceError as error:
            failed()
            log.warning("watch_failed", bucket=bucket.name, keys=keys, message=error.message)
            await asyncio.sleep(next(waits))
