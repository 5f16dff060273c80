"""
The loop that follows the configuration: work begins and ends with it, and what is stored of a deleted entry is erased.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Final, Generic, TypeVar

import structlog

from shared.errors import MillraceError

K = TypeVar("K", bound=Hashable)
J = TypeVar("J")

log = structlog.get_logger()

ERASE_RETRY_S: Final = 5.0
"""The pause before what could not be listed or erased is tried again."""


class Reconciler(Generic[K, J]):
    """
    Loop that follows the configuration; runs until `close`.

    Args:
        kind: For the log.
        jobs: Returns the active jobs by key.
        stored_keys: Returns the key of everything that has stored state, configured or not.
        erase_if_deleted: Erases the state of one key when its configuration is certainly deleted; returns whether it
            did. The state of a job that is only inactive stays.
    """

    def __init__(
        self,
        kind: str,
        *,
        jobs: Callable[[], Mapping[K, J]],
        stored_keys: Callable[[], Awaitable[set[K]]],
        erase_if_deleted: Callable[[K], Awaitable[bool]],
    ) -> None:
        self._kind = kind
        self._jobs = jobs
        self._stored_keys = stored_keys
        self._erase_if_deleted = erase_if_deleted
        self._changed = asyncio.Event()
        self.closing = False

    def changed(self) -> None:
        """Note that the configuration has changed."""
        self._changed.set()

    def close(self) -> None:
        """Begin nothing more."""
        self.closing = True
        self._changed.set()

    async def run(self, follow: Callable[[Mapping[K, J]], Awaitable[None]]) -> None:
        """
        Follow the configuration, and erase what was deleted.

        Args:
            follow: Begins and ends work for these jobs.
        """
        known: set[K] | None = None
        while not self.closing:
            self._changed.clear()
            jobs = self._jobs()
            await follow(jobs)
            if known is None:
                known = await self._list()
            complete = False
            if known is not None:
                left, complete = await self._erase(known - jobs.keys())
                known = left | jobs.keys()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if complete else ERASE_RETRY_S):
                    await self._changed.wait()

    async def _list(self) -> set[K] | None:
        try:
            return await self._stored_keys()
        except MillraceError as error:
            log.warning("stored_keys_list_failed", kind=self._kind, message=error.message)
            return None

    async def _erase(self, candidates: set[K]) -> tuple[set[K], bool]:
        """Return the keys whose state stays, and whether none of them failed."""
        left = set(candidates)
        complete = True
        for key in candidates:
            try:
                if await self._erase_if_deleted(key):
                    left.discard(key)
            except MillraceError as error:
                complete = False
                log.warning("stored_state_erase_failed", kind=self._kind, key=key, message=error.message)
        return left, complete
