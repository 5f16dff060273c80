"""
Fair sharing of what a process has little of (slots, bytes) among apps. Pure: no I/O, one event loop.

Work in progress is not taken back: a call to a silent bucket holds its slot until it ends. Fairness therefore lies in
three rules. An app alone gets the whole capacity. What becomes free goes to the waiting app that holds least, so that n
apps with work hold a share of 1/n each. A reserve above the capacity is for apps that hold next to nothing, so that one
app that holds everything delays no other.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from shared.errors import BusyError

_Waiter = tuple[int, asyncio.Future[None]]
"""The units that are waited for, and what is set when they are granted or refused."""


class FairShare:
    """
    A capacity that apps share. All methods are for one event loop.

    Args:
        capacity: Units of which one app alone may hold all.
        name: What is shared, in the plural, for errors: "large uploads".
        reserve: Units above the capacity, for apps that hold no more than `floor` with them.
        floor: The units that an app may hold of the reserve and of the capacity together.
        waiting: The largest number of waiters. Over it, the newest waiter of the app with most waiters is refused.
        wait_s: The longest wait.
        retry_after_s: Told to those that are refused.
    """

    def __init__(
        self,
        capacity: int,
        *,
        name: str,
        reserve: int = 0,
        floor: int = 1,
        waiting: int | None = None,
        wait_s: float | None = None,
        retry_after_s: float = 1.0,
    ) -> None:
        self._capacity = capacity
        self._name = name
        self._reserve = reserve
        self._floor = floor
        self._most_waiters = waiting
        self._wait_s = wait_s
        self._retry_after_s = retry_after_s
        self._held: dict[str, int] = {}
        self._total = 0
        self._queues: dict[str, deque[_Waiter]] = {}
        """Waiters by app, the app whose turn was longest ago first."""
        self._waiters = 0

    def held(self, app_key: str) -> int:
        """Units that an app holds."""
        return self._held.get(app_key, 0)

    def waiting(self, app_key: str) -> int:
        """Waiters of an app."""
        return len(self._queues.get(app_key, ()))

    @asynccontextmanager
    async def hold(self, app_key: str, units: int = 1) -> AsyncIterator[None]:
        """
        Wait for units, and hold them for the block. More than the capacity are held as the whole of it.

        Raises:
            BusyError: The wait took too long, or too many wait and this app has the most of them.
        """
        units = min(units, self._capacity)
        if self._queues or not self.take(app_key, units):
            await self._wait(app_key, units)
        try:
            yield
        finally:
            self.release(app_key, units)

    @contextmanager
    def counting(self, app_key: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes further units for the block. It raises `BusyError` when too few are free."""
        taken = 0

        def count(units: int) -> None:
            nonlocal taken
            if not self.take(app_key, units):
                raise self._busy()
            taken += units

        try:
            yield count
        finally:
            self.release(app_key, taken)

    def take(self, app_key: str, units: int) -> bool:
        """Take units without waiting, and without regard to waiters. Returns False when too few are free."""
        held = self._held.get(app_key, 0) + units
        total = self._total + units
        if total > self._capacity and (held > self._floor or total > self._capacity + self._reserve):
            return False
        self._held[app_key] = held
        self._total = total
        return True

    def release(self, app_key: str, units: int) -> None:
        """Return units that were taken."""
        self._total -= units
        left = self._held.get(app_key, 0) - units
        if left:
            self._held[app_key] = left
        else:
            self._held.pop(app_key, None)
        self._grant()

    async def _wait(self, app_key: str, units: int) -> None:
        waiter: _Waiter = units, asyncio.get_running_loop().create_future()
        self._queues.setdefault(app_key, deque()).append(waiter)
        self._waiters += 1
        self._grant()
        self._refuse_excess(app_key)
        try:
            async with asyncio.timeout(self._wait_s):
                # Shielded: a cancelled wait leaves the future as it is, to be granted or not.
                await asyncio.shield(waiter[1])
        except BaseException as error:
            if not waiter[1].done():
                self._remove(app_key, waiter)
                self._grant()
            elif waiter[1].exception() is None:
                # Granted and cancelled in the same moment.
                self.release(app_key, units)
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise

    def _refuse_excess(self, newest: str) -> None:
        """Refuse the newest waiter of the app with most of them: of several such apps, of the one that came now."""
        if self._most_waiters is None or self._waiters <= self._most_waiters:
            return
        longest = max(self._queues, key=lambda app_key: (self.waiting(app_key), app_key == newest))
        refused = self._queues[longest][-1]
        self._remove(longest, refused)
        refused[1].set_exception(self._busy())

    def _grant(self) -> None:
        """Grant what is free. An app that holds least and needs more than is free is waited for, or it would starve."""
        while self._queues:
            app_key = min(self._queues, key=self.held)
            waiter = self._queues[app_key][0]
            if not self.take(app_key, waiter[0]):
                return
            self._remove(app_key, waiter)
            if app_key in self._queues:
                self._queues[app_key] = self._queues.pop(app_key)
            waiter[1].set_result(None)

    def _remove(self, app_key: str, waiter: _Waiter) -> None:
        self._queues[app_key].remove(waiter)
        self._waiters -= 1
        if not self._queues[app_key]:
            del self._queues[app_key]

    def _busy(self) -> BusyError:
        return BusyError(f"the app has too many {self._name} in progress", retry_after_s=self._retry_after_s)
