"""
The claims of all exports in the bucket `CLAIMS`: one entry for each bucket of a customer, changed by compare-and-set.

The configuration decides. A claim is taken before the configuration is stored, and one that the configuration does not
confirm any more is passed over, so a crash in between keeps nobody out for longer than `PENDING`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from exporter.folders.claims import BucketClaims, Folder, FolderClaim, Owner
from shared.contracts.keys import EVERY_BUCKET_CLAIMS, bucket_claims_key, parse_replay_export
from shared.errors import BusyError, ConflictError, MillraceError
from shared.messaging.kv import KeyValueStore

log = structlog.get_logger()

ATTEMPTS: Final = 20
"""Writes of one entry in a row that others came before."""
PENDING: Final = timedelta(seconds=60)
"""The time from a claim to its configuration, which takes milliseconds."""
OF_AN_APP: Final = 100
OF_A_BUCKET: Final = 500
"""Bounds of the claims in one bucket: an entry has to fit in a message."""
SYNC_S: Final = 3600.0
FIELD: Final = "destination.directory"


class FolderClaims:
    """
    Claims of folders. Methods raise `UnavailableError` while NATS does not answer.

    Args:
        folder_of: Returns the folder of an export by its stored configuration, None when there is none.
    """

    def __init__(
        self,
        store: KeyValueStore,
        *,
        folder_of: Callable[[Owner], Awaitable[Folder | None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._folder_of = folder_of
        self._clock = clock

    async def is_proven(self, owner: Owner, folder: Folder) -> bool:
        """Return whether an export has a proven claim to a folder."""
        claims, _ = await self._read(bucket_claims_key(folder.place))
        return any(claim.proven and claim.owner == owner and claim.path == folder.path for claim in claims)

    async def check_own(self, owner: Owner, folder: Folder) -> None:
        """
        Check that no other export of the app stands in the way. Says nothing of other apps.

        Raises:
            ConflictError: Names the other export.
        """
        await self._without_ended(_claim_of(owner, folder), folder, await self._claims(folder))

    async def take(self, owner: Owner, folder: Folder, *, proven: bool) -> None:
        """
        Claim a folder, before the configuration is stored. Of several that clash, one gets it.

        Args:
            proven: Whether Test Connection passed.

        Raises:
            ConflictError: An export that claimed it before stands in the way; it is named where it is the app's own.
            BusyError: Others write the entry again and again.
        """
        key = bucket_claims_key(folder.place)
        for _ in range(ATTEMPTS):
            claims, revision = await self._read(key)
            known = next((claim for claim in claims if claim.owner == owner and claim.path == folder.path), None)
            taken = replace(
                _claim_of(owner, folder),
                proven=proven or (known is not None and known.proven),
                pending_until=self._clock() + PENDING,
            )
            others = await self._without_ended(taken, folder, tuple(claim for claim in claims if claim != known))
            _check_bounds(taken, others)
            if await self._written(key, (*others, taken), revision):
                return
        raise BusyError("others claim folders of this bucket all the time", retry_after_s=5)

    async def settle(self, owner: Owner, folders: Iterable[Folder]) -> None:
        """
        Let the claims of an export be what its stored configuration says, which was written or deleted.

        Args:
            folders: Those of the configuration before and after.
        """
        try:
            current = await self._folder_of(owner)
            for place in {folder.place for folder in folders}:
                await self._change(bucket_claims_key(place), partial(self._of, owner, current, place))
        except MillraceError as error:
            # What was stored is stored. Whoever meets a claim that is left asks for its configuration.
            log.warning("folder_claims_not_settled", app_key=owner[0], export=owner[1], message=error.message)

    async def sync_hourly(self, configured: Callable[[], Mapping[Owner, Folder]]) -> None:
        """Do `sync` once an hour, until cancelled."""
        while True:
            await asyncio.sleep(SYNC_S)
            try:
                await self.sync(configured())
            except MillraceError as error:
                log.warning("folder_claims_sync_failed", message=error.message)

    async def sync(self, configured: Mapping[Owner, Folder]) -> None:
        """
        Remove the claims of exports that are gone or elsewhere, and add those of exports that have none: a release
        before knew no claims. What these share already stays as it is.
        """
        expected: dict[str, dict[Owner, str]] = {}
        for owner, folder in configured.items():
            expected.setdefault(bucket_claims_key(folder.place), {})[owner] = folder.path
        stored = {entry.key for entry in await self._store.scan(EVERY_BUCKET_CLAIMS)}
        for key in stored | expected.keys():
            claims, _ = await self._read(key)
            at = self._clock()
            wanted = expected.get(key, {})
            ended = {
                claim
                for claim in claims
                if wanted.get(claim.owner) != claim.path and await self._has_ended(claim, key, at)
            }
            held = {(claim.owner, claim.path) for claim in claims}
            missing = tuple(
                FolderClaim(app_key=owner[0], export_id=owner[1], path=path, proven=True)
                for owner, path in wanted.items()
                if (owner, path) not in held
            )
            if ended or missing:
                await self._change(key, partial(_synced, ended, missing))

    def _of(
        self, owner: Owner, current: Folder | None, place: str, claims: tuple[FolderClaim, ...]
    ) -> tuple[FolderClaim, ...]:
        """The claims, with those of one export as its configuration says."""
        at = self._clock()
        kept = []
        for claim in claims:
            if claim.owner != owner:
                kept.append(claim)
            elif current is not None and current == Folder(place, claim.path):
                kept.append(replace(claim, pending_until=None))
            elif claim.is_pending(at):
                kept.append(claim)
        return tuple(kept)

    async def _without_ended(
        self, taken: FolderClaim, folder: Folder, claims: tuple[FolderClaim, ...]
    ) -> tuple[FolderClaim, ...]:
        """The claims that stay beside a new one. Raises `ConflictError` where it cannot be."""
        at, key = self._clock(), bucket_claims_key(folder.place)
        ended = []
        for claim in claims:
            if taken.clashes_with(claim):
                if not await self._has_ended(claim, key, at):
                    raise _refusal(taken, claim)
                ended.append(claim)
        return tuple(claim for claim in claims if claim not in ended)

    async def _has_ended(self, claim: FolderClaim, key: str, at: datetime) -> bool:
        """Return whether the configuration does not confirm a claim."""
        if claim.is_pending(at):
            return False
        found = await self._folder_of(claim.owner)
        return found is None or (bucket_claims_key(found.place), found.path) != (key, claim.path)

    async def _claims(self, folder: Folder) -> tuple[FolderClaim, ...]:
        claims, _ = await self._read(bucket_claims_key(folder.place))
        return claims

    async def _read(self, key: str) -> tuple[tuple[FolderClaim, ...], int]:
        entry = await self._store.entry(key)
        found = self._store.decoded(key, entry.data, BucketClaims)
        return found.claims if found else (), entry.revision

    async def _change(self, key: str, change: Callable[[tuple[FolderClaim, ...]], tuple[FolderClaim, ...]]) -> None:
        for _ in range(ATTEMPTS):
            before, revision = await self._read(key)
            after = change(before)
            if after == before or await self._written(key, after, revision):
                return
        raise BusyError("others claim folders of this bucket all the time", retry_after_s=5)

    async def _written(self, key: str, claims: tuple[FolderClaim, ...], revision: int) -> bool:
        """Write an entry after the revision that was read. Returns whether nobody came before."""
        try:
            if claims:
                data = msgspec.json.encode(BucketClaims(claims=claims))
                await self._store.put(key, data, expect_revision=revision, over_deleted=False)
            else:
                await self._store.delete(key, expect_revision=revision)
        except ConflictError:
            return False
        return True


def _claim_of(owner: Owner, folder: Folder) -> FolderClaim:
    return FolderClaim(app_key=owner[0], export_id=owner[1], path=folder.path)


def _refusal(taken: FolderClaim, other: FolderClaim) -> ConflictError:
    whose = _named(other.export_id) if other.app_key == taken.app_key else "another export"
    message = (
        f"{whose} writes to this directory, to one in it or to one around it; expected one that is this export's alone"
    )
    return ConflictError(message, field=FIELD)


def _named(name: str) -> str:
    replay = parse_replay_export(name)
    return f"the replay {replay[1]} of the export {replay[0]}" if replay else f"the export {name}"


def _check_bounds(taken: FolderClaim, others: tuple[FolderClaim, ...]) -> None:
    own = sum(claim.app_key == taken.app_key for claim in others)
    if own >= OF_AN_APP:
        raise ConflictError(f"expected at most {OF_AN_APP} exports of an app in one bucket", field=FIELD)
    if len(others) >= OF_A_BUCKET:
        raise ConflictError(f"expected at most {OF_A_BUCKET} exports in one bucket", field=FIELD)


def _synced(
    ended: set[FolderClaim], missing: tuple[FolderClaim, ...], claims: tuple[FolderClaim, ...]
) -> tuple[FolderClaim, ...]:
    kept = [claim for claim in claims if claim not in ended]
    held = {(claim.owner, claim.path) for claim in kept}
    more = [claim for claim in missing if (claim.owner, claim.path) not in held]
    return tuple([*kept, *more][:OF_A_BUCKET])
