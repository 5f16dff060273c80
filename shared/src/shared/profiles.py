"""
The profile store in `PROFILES`: what is known of a user, by the customer's external id.

Written by the ftp gateway (merge), read by hooks (cached). Attributes that a change leaves out stay as they are.
"""

import asyncio
from collections import OrderedDict

import msgspec
import structlog
from msgspec import Struct

from shared import subjects
from shared.buckets import BucketStore, is_deletion
from shared.bus import Bus
from shared.consumers import open_scan
from shared.errors import ConflictError, MillraceError
from shared.messages import Attributes, decode
from shared.retry import Backoff

log = structlog.get_logger()

MERGE_ATTEMPTS = 20
CACHED = 100_000
"""Profiles kept in memory by a reader; the least used goes first."""


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One profile."""

    ext_id: str
    email: str | None = None
    device_tokens: tuple[str, ...] = ()
    attributes: Attributes = {}


class Profiles:
    """Read and merge. Every method raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._store = BucketStore(bus, subjects.PROFILES)
        self._cache: OrderedDict[str, tuple[int, Profile | None]] = OrderedDict()
        self._watching = False
        self._overtaken: dict[str, int] = {}

    async def get(self, app_key: str, ext_id: str) -> Profile | None:
        """From the cache where a watch keeps it true, else from the bucket."""
        key = subjects.profile_key(app_key, ext_id)
        if self._watching and key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key][1]
        # A change that the watch sees during the read makes what was read too old to be kept.
        self._overtaken.setdefault(key, 0)
        try:
            stored = await self._store.get(key)
            profile = decode(stored.data, Profile) if stored else None
            revision = stored.revision if stored else 0
            if self._watching and self._overtaken.get(key, 0) <= revision:
                self._remember(key, revision, profile)
        finally:
            self._overtaken.pop(key, None)
        return profile

    async def merge(
        self,
        app_key: str,
        ext_id: str,
        *,
        email: str | None = None,
        device_token: str | None = None,
        attributes: Attributes | None = None,
    ) -> Profile:
        """
        Change what is given and keep the rest; a new external id makes a new profile. Doing it twice changes nothing.

        Raises:
            ConflictError: Others changed the profile each time in between.
        """
        key = subjects.profile_key(app_key, ext_id)
        for _ in range(MERGE_ATTEMPTS):
            stored = await self._store.get(key)
            old = decode(stored.data, Profile) if stored else Profile(ext_id=ext_id)
            tokens = old.device_tokens
            if device_token and device_token not in tokens:
                tokens = (*tokens, device_token)
            new = Profile(
                ext_id=ext_id,
                email=old.email if email is None else email,
                device_tokens=tokens,
                attributes=old.attributes | (attributes or {}),
            )
            if stored is not None and new == old:
                return old
            try:
                await self._store.put(key, msgspec.json.encode(new), expect_revision=stored.revision if stored else 0)
            except ConflictError:
                continue
            return new
        raise ConflictError("the profile is being changed too often")

    async def keep(self) -> None:
        """Hold the cache true by a watch, for ever. A task of a service that reads many."""
        waits = Backoff(first_s=0.2, max_s=10.0)
        delays = iter(waits.delays())
        while True:
            try:
                await self._watch()
            except MillraceError as error:
                self._watching = False
                self._cache.clear()
                log.warning("profiles_watch_failed", message=error.message)
                await asyncio.sleep(next(delays))

    async def _watch(self) -> None:
        state = await self._bus.stream_state(subjects.PROFILES)
        start = state.last_sequence + 1
        async with open_scan(self._bus, subjects.PROFILES, subject="$KV.PROFILES.>", start_sequence=start) as scan:
            self._cache.clear()
            self._watching = True
            while True:
                for message in await scan.next(1024):
                    key = message.subject.removeprefix("$KV.PROFILES.")
                    if key in self._overtaken:
                        self._overtaken[key] = message.sequence
                    known = self._cache.get(key)
                    if known is not None and known[0] < message.sequence:
                        gone = is_deletion(message.headers)
                        self._remember(key, message.sequence, None if gone else decode(message.data, Profile))

    def _remember(self, key: str, revision: int, profile: Profile | None) -> None:
        self._cache[key] = (revision, profile)
        self._cache.move_to_end(key)
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
