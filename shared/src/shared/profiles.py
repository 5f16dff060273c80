"""
The profile store in `PROFILES`: what is known of a user, by the customer's external id.

Written by the ftp gateway (merge), read by hooks (cached). Attributes that a change leaves out stay as they are.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import structlog
from msgspec import Struct

from shared import subjects
from shared.buckets import BucketStore, Entry, is_deletion
from shared.bus import Bus
from shared.consumers import open_scan
from shared.errors import ConflictError, MillraceError, TooLargeError
from shared.messages import Attributes, ProfileRow, decode
from shared.retry import Backoff

log = structlog.get_logger()

MERGE_ATTEMPTS = 20
AT_ONCE = 1000
"""Profiles that are read and written together; the server takes no more in one message's batch (NATS ADR-50)."""
MAX_PROFILE_BYTES = 256 * 1024
"""Of its JSON. A message of rows may change 500 of them, which are in memory together."""
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
        self._all_new = False

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
        """As `merge_all`, for one row. Gives the profile as it is now."""
        row = ProfileRow(
            id="", line=0, ext_id=ext_id, email=email, device_token=device_token, attributes=attributes or {}
        )
        return (await self.merge_all(app_key, (row,)))[ext_id]

    async def merge_all(self, app_key: str, rows: Sequence[ProfileRow]) -> dict[str, Profile]:
        """
        Change what is given and keep the rest; a new external id makes a new profile. Rows of one user keep their
        order. Doing it twice changes nothing. Gives the profiles as they are now, by external id.

        Raises:
            ConflictError: Others changed the profiles each time in between. Some may be written, and some not.
            TooLargeError: Some would have more than `MAX_PROFILE_BYTES`. They stay as they are, all others are written.
        """
        by_user: dict[str, list[ProfileRow]] = {}
        for row in rows:
            by_user.setdefault(row.ext_id, []).append(row)
        merged: dict[str, Profile] = {}
        users = list(by_user)
        for at in range(0, len(users), AT_ONCE):
            part = {user: by_user[user] for user in users[at : at + AT_ONCE]}
            merged |= await self._merge_part(app_key, part)
        if len(merged) < len(users):
            left = [user for user in users if user not in merged]
            raise TooLargeError(
                f"{len(left)} profiles would have more than {MAX_PROFILE_BYTES} bytes, that of {left[0]!r} is the first"
            )
        return merged

    async def _merge_part(self, app_key: str, by_user: dict[str, list[ProfileRow]]) -> dict[str, Profile]:
        """Gives the profiles without those that would be too large."""
        keys = dict(zip(subjects.profile_keys(app_key, list(by_user)), by_user, strict=True))
        for _ in range(MERGE_ATTEMPTS):
            # Where the users before were all new, these are taken for new as well: writing tells when they are not.
            known = {} if self._all_new else await self._store.get_many(list(keys))
            self._all_new = not known
            merged: dict[str, Profile] = {}
            changed: list[Entry] = []
            for key, ext_id in keys.items():
                entry = known.get(key) or Entry(key, None, 0)
                old = decode(entry.data, Profile) if entry.data else None
                new = _merged(old or Profile(ext_id=ext_id), by_user[ext_id])
                if new != old:
                    data = msgspec.json.encode(new)
                    if len(data) > MAX_PROFILE_BYTES:
                        continue
                    changed.append(Entry(key, data, entry.revision))
                merged[ext_id] = new
            try:
                if changed:
                    await self._store.put_many(changed)
            except ConflictError:
                self._all_new = False
                continue
            return merged
        raise ConflictError("the profiles are being changed too often")

    async def unknown(self, app_key: str, ext_ids: Sequence[str]) -> set[str]:
        """Those that have no profile."""
        keys = dict(zip(subjects.profile_keys(app_key, ext_ids), ext_ids, strict=True))
        asked = list(keys)
        for at in range(0, len(asked), AT_ONCE):
            for entry in (await self._store.get_many(asked[at : at + AT_ONCE])).values():
                if entry.data is not None:
                    del keys[entry.key]
        return set(keys.values())

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


def _merged(profile: Profile, rows: Sequence[ProfileRow]) -> Profile:
    email, tokens, attributes = profile.email, profile.device_tokens, profile.attributes
    for row in rows:
        email = email if row.email is None else row.email
        if row.device_token and row.device_token not in tokens:
            tokens = (*tokens, row.device_token)
        attributes = attributes | row.attributes
    return Profile(ext_id=profile.ext_id, email=email, device_tokens=tokens, attributes=attributes)
