"""
Which providers an app has, in the order of their precedence, and those that are open now.

Open providers are shared and kept by the revision of their connector, so a changed one takes effect with the next
upload, while the uploads under way end with the old one, which is closed after the last of them. Those that nobody has
used for longest are closed when there are many.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, Final, Protocol, Self

from msgspec import Struct

from shared.config.registry import Entry
from storage.placement.failover import Provider, ProviderHealth, ProviderSlot, State

MOST_OPEN: Final = 256
"""Providers that stay open while nobody uses them: each has connections of its own."""

Key = tuple[str, str]
"""An app, and the name of one of its providers."""


class Connector(Protocol):
    """The configuration of a provider, as far as it matters here."""

    @property
    def active(self) -> bool: ...

    @property
    def place(self) -> str: ...


class Source(Struct, frozen=True):
    """Connectors of one kind: the entry of an app as it is now, and how its provider is opened."""

    entry_of: Callable[[str], Entry[Any] | None]
    open: Callable[[Any], AbstractAsyncContextManager[Provider]]


class ProviderStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a provider of an app does. `message` and `since` tell of its failure."""

    name: str
    place: str
    active: bool
    state: State
    message: str | None = None
    since: datetime | None = None


class _Held:
    """A provider that is open. `users` are the uploads that use it now."""

    def __init__(self, revision: int, provider: Provider, stack: AsyncExitStack) -> None:
        self.revision = revision
        self.provider = provider
        self.stack = stack
        self.users = 0
        self.replaced = False


class _ConnectorSeat:
    """Satisfies `placement.ProviderSlot`."""

    def __init__(self, selection: "Selection", key: Key, entry: Entry[Any], standing: ProviderHealth) -> None:
        self.standing = standing
        self._selection = selection
        self._key = key
        self._entry = entry

    def open(self) -> AbstractAsyncContextManager[Provider]:
        return self._selection.use(self._key, self._entry)


class _LocalSeat:
    """Satisfies `placement.ProviderSlot`."""

    def __init__(self, provider: Provider, standing: ProviderHealth) -> None:
        self.standing = standing
        self._provider = provider

    def open(self) -> AbstractAsyncContextManager[Provider]:
        return nullcontext(self._provider)


class Selection:
    """
    Satisfies `uploads.Providers`. An async context manager: leaving it closes what is open.

    Args:
        sources: Kinds of connectors by the name of their provider, the one with precedence first.
        local: Where objects go after them; None where nothing is to lie on this machine. Closed by whoever opened it.
        standing_of: Makes the standing of a provider of an app.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        local: Provider | None,
        standing_of: Callable[[str, str], ProviderHealth],
        most_open: int = MOST_OPEN,
    ) -> None:
        self._sources = sources
        self._local = local
        self._standing_of = standing_of
        self._most_open = most_open
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._opening: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._standings: dict[Key, ProviderHealth] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        while self._held:
            _, held = self._held.popitem()
            await held.stack.aclose()

    def seats(self, app_key: str) -> list[ProviderSlot]:
        """See `uploads.Providers`."""
        seats: list[ProviderSlot] = []
        for name, source in self._sources.items():
            entry = source.entry_of(app_key)
            if entry is not None and entry.value.active:
                seats.append(_ConnectorSeat(self, (app_key, name), entry, self._standing((app_key, name), entry)))
        if self._local is not None:
            seats.append(_LocalSeat(self._local, self._standing((app_key, self._local.name), None)))
        return seats

    def at(self, app_key: str, place: str) -> AbstractAsyncContextManager[Provider] | None:
        """See `uploads.Providers`."""
        if self._local is not None and self._local.place == place:
            return nullcontext(self._local)
        for name, source in self._sources.items():
            entry = source.entry_of(app_key)
            if entry is not None and entry.value.place == place:
                return self.use((app_key, name), entry)
        return None

    def statuses(self, app_key: str) -> tuple[ProviderStatus, ...]:
        """Every provider of an app, in the order of their precedence."""
        entries = {name: source.entry_of(app_key) for name, source in self._sources.items()}
        connectors: list[tuple[str, Connector]] = [(name, entry.value) for name, entry in entries.items() if entry]
        statuses = [self._status((app_key, name), value.place, value.active) for name, value in connectors]
        if self._local is not None:
            statuses.append(self._status((app_key, self._local.name), self._local.place, True))
        return tuple(statuses)

    def unwell(self) -> dict[str, str]:
        """Names of providers that fail for some apps, and for how many. The apps themselves are told by alerts."""
        counts: dict[tuple[str, State], int] = {}
        for key, standing in self._standings.items():
            if standing.state != "ok" and self._is_active(key):
                kind = (standing.name, standing.state)
                counts[kind] = counts.get(kind, 0) + 1
        told: dict[str, str] = {}
        for (name, state), count in sorted(counts.items()):
            words = f"{state} for {count} app{'s' if count > 1 else ''}"
            told[name] = f"{told[name]}, {words}" if name in told else words
        return told

    @asynccontextmanager
    async def use(self, key: Key, entry: Entry[Any]) -> AsyncIterator[Provider]:
        """The provider of a connector, open at least while the block runs. Raises what opening it raises."""
        held = await self._current(key, entry)
        held.users += 1
        try:
            yield held.provider
        finally:
            held.users -= 1
            if held.users == 0 and not held.replaced and not self._is_active(key):
                self._held.pop(key, None)
                held.replaced = True
            if held.users == 0 and held.replaced:
                await held.stack.aclose()

    async def _current(self, key: Key, entry: Entry[Any]) -> _Held:
        # A request that read the connector before another one did may come after it: newer is right as well.
        if (held := self._held.get(key)) is not None and held.revision >= entry.revision:
            self._held.move_to_end(key)
            return held
        # Opening may look a host up, so no app waits for another's.
        async with self._opening[key]:
            if (held := self._held.get(key)) is not None and held.revision >= entry.revision:
                return held
            stack = AsyncExitStack()
            provider = await stack.enter_async_context(self._sources[key[1]].open(entry.value))
            replaced = self._held.pop(key, None)
            held = self._held[key] = _Held(entry.revision, provider, stack)
            held.users += 1
            try:
                await self._close(replaced)
                await self._close_unused()
            finally:
                held.users -= 1
            return held

    async def _close_unused(self) -> None:
        # Gone are connectors that were deleted or are not active any more, and the longest unused of too many.
        surplus = len(self._held) - self._most_open
        for key, held in list(self._held.items()):
            if held.users == 0 and (surplus > 0 or not self._is_active(key)):
                surplus -= 1
                del self._held[key]
                self._opening.pop(key, None)
                await self._close(held)
        for app_key, name in list(self._standings):
            if name in self._sources and self._sources[name].entry_of(app_key) is None:
                del self._standings[app_key, name]

    async def _close(self, held: _Held | None) -> None:
        if held is not None:
            held.replaced = True
            if held.users == 0:
                await held.stack.aclose()

    def _is_active(self, key: Key) -> bool:
        app_key, name = key
        source = self._sources.get(name)
        if source is None:
            return True
        entry = source.entry_of(app_key)
        return entry is not None and bool(entry.value.active)

    def _standing(self, key: Key, entry: Entry[Any] | None) -> ProviderHealth:
        standing = self._standings.get(key)
        if standing is None:
            standing = self._standings[key] = self._standing_of(*key)
        if entry is not None:
            standing.renewed(entry.revision)
        return standing

    def _status(self, key: Key, place: str, active: bool) -> ProviderStatus:
        standing = self._standings.get(key)
        if standing is None or not active:
            return ProviderStatus(name=key[1], place=place, active=active, state="ok")
        message = standing.error.message if standing.error is not None else None
        return ProviderStatus(
            name=key[1], place=place, active=active, state=standing.state, message=message, since=standing.since
        )
