"""
The providers of an app in the order of their precedence, and the pool of open providers.

Uploads share open providers, one for each revision of a connector. A changed connector takes effect with the next
upload; uploads in progress keep the old provider, which is closed after the last of them. When many are open, the least
recently used are closed.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, Final, Protocol, Self

from msgspec import Struct

from shared.config.registry import ConfigEntry
from storage.placement.failover import Provider, ProviderHealth, ProviderSlot, ProviderState

MAX_OPEN: Final = 256
"""Providers that stay open while unused: each has connections of its own."""

Key = tuple[str, str]
"""An app, and the name of one of its providers."""


class ConnectorConfig(Protocol):
    """The configuration of a provider, as far as placement uses it."""

    @property
    def active(self) -> bool: ...

    @property
    def place(self) -> str: ...


class ConnectorSource(Struct, frozen=True):
    """Connectors of one kind: the current entry of an app, and the way to open its provider."""

    entry_of: Callable[[str], ConfigEntry[Any] | None]
    open: Callable[[Any], AbstractAsyncContextManager[Provider]]


class ProviderStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The status of a provider of an app. `message` and `since` describe its failure."""

    name: str
    place: str
    active: bool
    state: ProviderState
    message: str | None = None
    since: datetime | None = None


class _OpenProvider:
    """An open provider. `users` counts the uploads that use it."""

    def __init__(self, revision: int, provider: Provider, stack: AsyncExitStack) -> None:
        self.revision = revision
        self.provider = provider
        self.stack = stack
        self.users = 0
        self.replaced = False


class _ConnectorSlot:
    """Satisfies `storage.placement.failover.ProviderSlot`."""

    def __init__(
        self, selection: "ProviderSelection", key: Key, entry: ConfigEntry[Any], health: ProviderHealth
    ) -> None:
        self.health = health
        self._selection = selection
        self._key = key
        self._entry = entry

    def open(self) -> AbstractAsyncContextManager[Provider]:
        return self._selection.use(self._key, self._entry)


class _LocalSlot:
    """Satisfies `storage.placement.failover.ProviderSlot`."""

    def __init__(self, provider: Provider, health: ProviderHealth) -> None:
        self.health = health
        self._provider = provider

    def open(self) -> AbstractAsyncContextManager[Provider]:
        return nullcontext(self._provider)


class ProviderSelection:
    """
    Satisfies `storage.uploads.upload.Providers`. An async context manager: on exit it closes the open providers.

    Args:
        sources: Kinds of connectors by the name of their provider, in the order of precedence.
        local: The provider after them; None where the local directory is not used. Its opener closes it.
        make_health: Makes the health of a provider of an app.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, ConnectorSource],
        local: Provider | None,
        make_health: Callable[[str, str], ProviderHealth],
        max_open: int = MAX_OPEN,
    ) -> None:
        self._sources = sources
        self._local = local
        self._make_health = make_health
        self._max_open = max_open
        self._open_providers: OrderedDict[Key, _OpenProvider] = OrderedDict()
        self._opening: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._healths: dict[Key, ProviderHealth] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        while self._open_providers:
            _, opened = self._open_providers.popitem()
            await opened.stack.aclose()

    def slots(self, app_key: str) -> list[ProviderSlot]:
        """See `storage.uploads.upload.Providers`."""
        slots: list[ProviderSlot] = []
        for name, source in self._sources.items():
            entry = source.entry_of(app_key)
            if entry is not None and entry.value.active:
                slots.append(_ConnectorSlot(self, (app_key, name), entry, self._health((app_key, name), entry)))
        if self._local is not None:
            slots.append(_LocalSlot(self._local, self._health((app_key, self._local.name), None)))
        return slots

    def provider_at(self, app_key: str, place: str) -> AbstractAsyncContextManager[Provider] | None:
        """See `storage.uploads.upload.Providers`."""
        if self._local is not None and self._local.place == place:
            return nullcontext(self._local)
        for name, source in self._sources.items():
            entry = source.entry_of(app_key)
            if entry is not None and entry.value.place == place:
                return self.use((app_key, name), entry)
        return None

    def statuses(self, app_key: str) -> tuple[ProviderStatus, ...]:
        """The status of every provider of an app, in the order of precedence."""
        entries = {name: source.entry_of(app_key) for name, source in self._sources.items()}
        connectors: list[tuple[str, ConnectorConfig]] = [
            (name, entry.value) for name, entry in entries.items() if entry
        ]
        statuses = [self._status((app_key, name), value.place, value.active) for name, value in connectors]
        if self._local is not None:
            statuses.append(self._status((app_key, self._local.name), self._local.place, True))
        return tuple(statuses)

    def degraded(self) -> dict[str, str]:
        """Failing providers by name, with the number of apps. Alerts name the apps."""
        counts: dict[tuple[str, ProviderState], int] = {}
        for key, health in self._healths.items():
            if health.state != "ok" and self._is_active(key):
                kind = (health.name, health.state)
                counts[kind] = counts.get(kind, 0) + 1
        summary: dict[str, str] = {}
        for (name, state), count in sorted(counts.items()):
            text = f"{state} for {count} app{'s' if count > 1 else ''}"
            summary[name] = f"{summary[name]}, {text}" if name in summary else text
        return summary

    @asynccontextmanager
    async def use(self, key: Key, entry: ConfigEntry[Any]) -> AsyncIterator[Provider]:
        """The provider of a connector, open at least for the block. Raises the error of opening it."""
        opened = await self._current(key, entry)
        opened.users += 1
        try:
            yield opened.provider
        finally:
            opened.users -= 1
            if opened.users == 0 and not opened.replaced and not self._is_active(key):
                self._open_providers.pop(key, None)
                opened.replaced = True
            if opened.users == 0 and opened.replaced:
                await opened.stack.aclose()

    async def _current(self, key: Key, entry: ConfigEntry[Any]) -> _OpenProvider:
        # A request may come later than one that has read a newer connector: the newer provider is right for both.
        if (opened := self._open_providers.get(key)) is not None and opened.revision >= entry.revision:
            self._open_providers.move_to_end(key)
            return opened
        # Opening may resolve a host name, so no app waits for another one's.
        async with self._opening[key]:
            if (opened := self._open_providers.get(key)) is not None and opened.revision >= entry.revision:
                return opened
            stack = AsyncExitStack()
            provider = await stack.enter_async_context(self._sources[key[1]].open(entry.value))
            replaced = self._open_providers.pop(key, None)
            opened = self._open_providers[key] = _OpenProvider(entry.revision, provider, stack)
            opened.users += 1
            try:
                await self._close(replaced)
                await self._close_unused()
            finally:
                opened.users -= 1
            return opened

    async def _close_unused(self) -> None:
        # Closes providers of deleted and inactive connectors, and the least recently used of too many.
        surplus = len(self._open_providers) - self._max_open
        for key, opened in list(self._open_providers.items()):
            if opened.users == 0 and (surplus > 0 or not self._is_active(key)):
                surplus -= 1
                del self._open_providers[key]
                self._opening.pop(key, None)
                await self._close(opened)
        for app_key, name in list(self._healths):
            if name in self._sources and self._sources[name].entry_of(app_key) is None:
                del self._healths[app_key, name]

    async def _close(self, opened: _OpenProvider | None) -> None:
        if opened is not None:
            opened.replaced = True
            if opened.users == 0:
                await opened.stack.aclose()

    def _is_active(self, key: Key) -> bool:
        app_key, name = key
        source = self._sources.get(name)
        if source is None:
            return True
        entry = source.entry_of(app_key)
        return entry is not None and bool(entry.value.active)

    def _health(self, key: Key, entry: ConfigEntry[Any] | None) -> ProviderHealth:
        health = self._healths.get(key)
        if health is None:
            health = self._healths[key] = self._make_health(*key)
        if entry is not None:
            health.reset_if_changed(entry.revision)
        return health

    def _status(self, key: Key, place: str, active: bool) -> ProviderStatus:
        health = self._healths.get(key)
        if health is None or not active:
            return ProviderStatus(name=key[1], place=place, active=active, state="ok")
        message = health.error.message if health.error is not None else None
        return ProviderStatus(
            name=key[1], place=place, active=active, state=health.state, message=message, since=health.since
        )
