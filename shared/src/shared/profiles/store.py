"""
Profiles of users in `PROFILES`, by the customer's external id.

The gateway writes them, hooks reads them through `shared.profiles.cache`. Attributes that a change leaves out stay as
they are.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from shared.contracts import profile_keys, streams
from shared.contracts.messages import ProfileAttributes, ProfileRow, make_profile_attributes
from shared.errors import ConflictError, TooLargeError
from shared.messaging.bus import Bus
from shared.messaging.kv import BucketEntry, KeyValueStore

MERGE_ATTEMPTS = 20
AT_ONCE = 1000
"""Profiles that are read and written together; the server takes no more in one message's batch (NATS ADR-50)."""
MAX_PROFILE_BYTES = 256 * 1024
"""Limit of the JSON of a profile. A message of rows may change 500 profiles, which are in memory together."""


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One profile."""

    ext_id: str
    email: str | None = None
    device_tokens: tuple[str, ...] = ()
    attributes: ProfileAttributes = {}


class Profiles:
    """Store of profiles. Every method raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._store = KeyValueStore(bus, streams.PROFILES)
        self._all_new = False

    async def get(self, app_key: str, ext_id: str) -> Profile | None:
        """The profile in the bucket, or None."""
        stored = await self._store.get(profile_keys.profile_key(app_key, ext_id))
        return self._store.decoded(stored.key, stored.data, Profile) if stored else None

    async def merge(
        self,
        app_key: str,
        ext_id: str,
        *,
        email: str | None = None,
        device_token: str | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> Profile:
        """Merge one row; see `merge_all`. Returns the profile as it is now."""
        values = make_profile_attributes(attributes or {})
        row = ProfileRow(id="", line=0, ext_id=ext_id, email=email, device_token=device_token, attributes=values)
        return (await self.merge_all(app_key, (row,)))[ext_id]

    async def merge_all(self, app_key: str, rows: Sequence[ProfileRow]) -> dict[str, Profile]:
        """
        Change the values in the rows and keep the rest; a new external id makes a new profile. Rows of one user keep
        their order. Doing it twice changes nothing.

        Returns:
            The profiles as they are now, by external id.

        Raises:
            ConflictError: Other writers changed the profiles each time in between. Some may be written, and some not.
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
        """Merge at most `AT_ONCE` users. Returns the profiles without those that would be too large."""
        keys = dict(zip(profile_keys.profile_keys(app_key, list(by_user)), by_user, strict=True))
        for _ in range(MERGE_ATTEMPTS):
            # Where the users before were all new, these are assumed to be new: a conflict shows when they are not.
            known = {} if self._all_new else await self._store.get_many(list(keys))
            self._all_new = not known
            merged: dict[str, Profile] = {}
            changed: list[BucketEntry] = []
            for key, ext_id in keys.items():
                entry = known.get(key) or BucketEntry(key, None, 0)
                old = self._store.decoded(key, entry.data, Profile)
                new = _merged(old or Profile(ext_id=ext_id), by_user[ext_id])
                if new != old:
                    data = msgspec.json.encode(new)
                    if len(data) > MAX_PROFILE_BYTES:
                        continue
                    changed.append(BucketEntry(key, data, entry.revision))
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
        """The external ids that have no profile."""
        keys = dict(zip(profile_keys.profile_keys(app_key, ext_ids), ext_ids, strict=True))
        asked = list(keys)
        for at in range(0, len(asked), AT_ONCE):
            for entry in (await self._store.get_many(asked[at : at + AT_ONCE])).values():
                if entry.data is not None:
                    del keys[entry.key]
        return set(keys.values())


def _merged(profile: Profile, rows: Sequence[ProfileRow]) -> Profile:
    email, tokens, attributes = profile.email, profile.device_tokens, profile.attributes
    for row in rows:
        email = email if row.email is None else row.email
        if row.device_token and row.device_token not in tokens:
            tokens = (*tokens, row.device_token)
        attributes = attributes | row.attributes
    return Profile(ext_id=profile.ext_id, email=email, device_tokens=tokens, attributes=attributes)
