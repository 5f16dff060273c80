"""A service as data, and the parts that one is built from. `shared.lifecycle` starts and stops it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from shared.config.registry import Kind, Registry
from shared.contracts.consumers import DurableConsumer
from shared.contracts.streams import Bucket, Stream
from shared.http.health import Health, Ping
from shared.http.routes import Route
from shared.messaging.bus import Bus
from shared.messaging.endpoints import Endpoint
from shared.messaging.kv import KeyValueStore
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics

T = TypeVar("T")
S = TypeVar("S", bound=Settings)


class Intake(Protocol):
    """
    An entry of work. The runtime calls both methods, once each, in this order, when the service stops.

    `close` accepts no more work and does not block. `join` returns when the work in flight is finished and its effect
    durable. It is cancelled at the deadline, and the work it leaves comes again after a restart.
    """

    def close(self) -> None: ...

    async def join(self) -> None: ...


class Mesh:
    """Shared parts that a service is built from, and the hooks into its life."""

    def __init__(
        self,
        *,
        name: str,
        settings: Settings,
        bus: Bus,
        registry: Registry,
        metrics: Metrics,
        health: Health,
        outgoing: Outgoing,
        public_url: str,
        stack: AsyncExitStack,
        tasks: asyncio.TaskGroup,
        spawned: list[asyncio.Task[None]],
    ) -> None:
        self.name = name
        self.settings = settings
        self.bus = bus
        self.registry = registry
        self.metrics = metrics
        self.outgoing = outgoing
        self.public_url = public_url
        self.addresses: dict[str, str] = {}
        self.intakes: list[tuple[str, Intake]] = []
        self.spawned = spawned
        self._health = health
        self._stack = stack
        self._tasks = tasks

    def settings_as(self, settings_type: type[S]) -> S:
        """The settings as the service's own type, which its `Service` names. Raises `TypeError` for another type."""
        if not isinstance(self.settings, settings_type):
            raise TypeError(f"{self.name}: expected {settings_type.__name__}, found {type(self.settings).__name__}")
        return self.settings

    async def enter(self, part: AbstractAsyncContextManager[T]) -> T:
        """Open a part. It is closed, in reverse order, when no work is in flight any more."""
        return await self._stack.enter_async_context(part)

    def bucket(self, bucket: Bucket) -> KeyValueStore:
        """Bytes in a bucket that the service declares."""
        return KeyValueStore(self.bus, bucket)

    def ping(self, name: str, check: Ping) -> None:
        """A named condition of readiness."""
        self._health.add(name, check)

    def add_degraded(self, degraded: Callable[[], dict[str, str]]) -> None:
        """Add a source of what is degraded: readiness shows it and does not fail for it."""
        self._health.add_degraded(degraded)

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run for the life of the service. A failure stops the service, for its supervisor to start it again."""
        task = self._tasks.create_task(work, name=name)
        self.spawned.append(task)
        task.add_done_callback(self.spawned.remove)
        return task

    def intake(self, name: str, intake: Intake) -> None:
        """Add an intake to close and join when the service stops."""
        self.intakes.append((name, intake))

    def announce(self, name: str, address: str) -> None:
        """Add an address beside HTTP's to the announce file."""
        self.addresses[name] = address


class Service(Struct, frozen=True, kw_only=True):
    """
    A service, as data.

    `build` is its composition root: it opens the parts and returns the state that routes and endpoints work on.
    `settings` is a subclass of `Settings` where the service has settings of its own. Streams, buckets, consumers and
    kinds are those that the service works with; it starts when `millrace provision` has made the first three.
    """

    name: str
    build: Callable[[Mesh], Awaitable[Any]]
    settings: type[Settings] = Settings
    routes: tuple[Route, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    streams: tuple[Stream, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    consumers: tuple[DurableConsumer, ...] = ()
    kinds: tuple[Kind[Any], ...] = ()


class RunningService(Struct, frozen=True):
    """A service that is ready: its address, and its parts (for tests)."""

    url: str
    mesh: Mesh
    state: Any
