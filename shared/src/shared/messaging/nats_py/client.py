"""
nats-py's client, with waits that end when they are cancelled.

It waits by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with the answer
(python/cpython#86296). A task that was cancelled would go on, and a `TaskGroup` would wait for it for ever.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nats.aio import client
from nats.aio.msg import Msg


class NatsClient(client.Client):
    """The client, with the calls that wait for the server. Those of JetStream go by `request` too."""

    async def request(self, *args: Any, **options: Any) -> Msg:
        with _cancellable():
            return await super().request(*args, **options)

    async def flush(self, *args: Any, **options: Any) -> None:
        with _cancellable():
            await super().flush(*args, **options)


@contextmanager
def _cancellable() -> Iterator[None]:
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    except Exception:
        if task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError
