"""
Cache of profiles for a reader of very many: in memory, and current by a watch of each app that was read from.

An app that is not read costs nothing, however many profiles a file changes there.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence

from shared.contracts import profile_keys, streams
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore, is_deletion
from shared.messaging.message import Message
from shared.messaging.pull import Pull
from shared.messaging.watch import watch_changes
from shared.profiles.store import Profile

CACHED = 100_000
"""Profiles that are kept; the least recently used goes first."""
WATCH_MESSAGES = 256
WATCH_BYTES = 1 << 20
"""Limits of messages in flight to each watch: there is one for every app."""


class ProfileCache:
    """Profiles in memory. Nothing is cached before `run` is called, which is a task for the life of the service."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._store = KeyValueStore(bus, streams.PROFILES)
        self._kept: OrderedDict[str, tuple[int, Profile | None]] = OrderedDict()
        self._read: asyncio.Queue[str] = asyncio.Queue()
        self._watches: dict[str, object | None] = {}
        """By app that was read: the scan of its open watch, None while no watch is open."""
        self._reading: Counter[str] = Counter()

    async def get(self, app_key: str, ext_id: str) -> Profile | None:
        """A profile as the watch knows it, or from the bucket. Raises `UnavailableError` when NATS does not answer."""
        key = profile_keys.profile_key(app_key, ext_id)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][1]
        if app_key not in self._watches:
            self._watches[app_key] = None
            self._read.put_nowait(app_key)
        watch = self._watches[app_key]
        self._reading[key] += 1
        try:
            stored = await self._store.get(key)
            profile = self._store.decoded(key, stored.data, Profile) if stored else None
            if watch and watch is self._watches[app_key]:
                self._keep(key, stored.revision if stored else 0, profile)
        finally:
            self._reading[key] -= 1
            if not self._reading[key]:
                del self._reading[key]
        return profile

    async def run(self) -> None:
        """Watch every app that is read, until cancelled."""
        async with asyncio.TaskGroup() as watches:
            while True:
                watches.create_task(self._keep_app(await self._read.get()))

    async def _keep_app(self, app_key: str) -> None:
        def opened(scan: Pull) -> None:
            self._watches[app_key] = scan

        def failed() -> None:
            self._watches[app_key] = None
            for key in [key for key in self._kept if profile_keys.is_profile_key_of(app_key, key)]:
                del self._kept[key]

        await watch_changes(
            self._bus,
            streams.PROFILES,
            profile_keys.profile_keys_of_app(app_key),
            self._apply,
            opened=opened,
            failed=failed,
            capacity=WATCH_MESSAGES,
            capacity_bytes=WATCH_BYTES,
        )

    async def _apply(self, messages: Sequence[Message]) -> None:
        for message in messages:
            key = self._store.stored(message).key
            # Also what is being read: the answer may be older than this change.
            if key in self._kept or key in self._reading:
                deleted = is_deletion(message.headers)
                profile = None if deleted else self._store.decoded(key, message.data, Profile)
                self._keep(key, message.sequence, profile)

    def _keep(self, key: str, revision: int, profile: Profile | None) -> None:
        if key in self._kept and self._kept[key][0] >= revision:
            return
        self._kept[key] = (revision, profile)
        self._kept.move_to_end(key)
        if len(self._kept) > CACHED:
            self._kept.popitem(last=False)
