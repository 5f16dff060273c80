"""Claims of folders in a real bucket of NATS, with the configuration as a dict."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from exporter.folders.claims import Folder, Owner
from exporter.folders.folder_claims import OF_AN_APP, PENDING, FolderClaims
from shared.contracts import streams
from shared.contracts.keys import bucket_claims_key
from shared.errors import ConflictError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings

RAW = Folder("amazonaws.com raw-data", "clicks")
SHOP, RIVAL = ("shop", "clicks"), ("rival", "x")


class Configured:
    """The stored configuration, and the time."""

    def __init__(self) -> None:
        self.folders: dict[Owner, Folder] = {}
        self.now = datetime(2026, 12, 1, tzinfo=UTC)

    async def folder_of(self, owner: Owner) -> Folder | None:
        return self.folders.get(owner)


@pytest.fixture
def configured() -> Configured:
    return Configured()


@pytest.fixture
async def store(bus: Bus, settings: Settings) -> KeyValueStore:
    await ensure(bus, streams.CLAIMS, settings)
    return KeyValueStore(bus, streams.CLAIMS)


@pytest.fixture
def claims(store: KeyValueStore, configured: Configured) -> FolderClaims:
    return FolderClaims(store, folder_of=configured.folder_of, clock=lambda: configured.now)


async def test_claim_whose_configuration_never_came_ends(claims: FolderClaims, configured: Configured) -> None:
    await claims.take(SHOP, RAW, proven=True)
    with pytest.raises(ConflictError, match="another export"):
        await claims.take(RIVAL, RAW, proven=True)

    configured.now += PENDING
    await claims.take(RIVAL, RAW, proven=True)

    assert (False, True) == (await claims.is_proven(SHOP, RAW), await claims.is_proven(RIVAL, RAW))


async def test_claim_holds_for_as_long_as_the_configuration_says_so(
    claims: FolderClaims, configured: Configured
) -> None:
    await claims.take(SHOP, RAW, proven=True)
    configured.folders[SHOP] = RAW
    configured.now += timedelta(days=400)

    with pytest.raises(ConflictError, match="the export clicks"):
        await claims.take(("shop", "other"), RAW, proven=True)
    del configured.folders[SHOP]
    await claims.take(("shop", "other"), RAW, proven=True)


async def test_claim_once_proven_stays_so(claims: FolderClaims) -> None:
    await claims.take(SHOP, RAW, proven=True)
    await claims.take(SHOP, RAW, proven=False)

    assert await claims.is_proven(SHOP, RAW)


async def test_settling_leaves_what_the_configuration_says(
    claims: FolderClaims, configured: Configured, store: KeyValueStore
) -> None:
    moved = Folder(RAW.place, "moved")
    await claims.take(SHOP, RAW, proven=True)
    configured.folders[SHOP] = RAW
    await claims.settle(SHOP, [RAW])
    await claims.take(SHOP, moved, proven=True)
    configured.folders[SHOP] = moved
    await claims.settle(SHOP, [RAW, moved])

    await claims.take(RIVAL, RAW, proven=True)
    del configured.folders[SHOP]
    await claims.settle(SHOP, [moved])
    await claims.settle(RIVAL, [RAW])
    configured.now += PENDING
    await claims.settle(RIVAL, [RAW])

    assert [] == await store.scan()


async def test_old_exports_get_claims_and_ended_ones_go(
    claims: FolderClaims, configured: Configured, store: KeyValueStore
) -> None:
    gone = Folder("amazonaws.com gone", "x")
    await claims.take(RIVAL, gone, proven=True)
    await claims.take(("rival", "new"), RAW, proven=False)
    configured.now += PENDING
    configured.folders = {SHOP: RAW, ("shop", "same"): RAW, ("rival", "new"): RAW}

    for _ in range(2):
        await claims.sync(configured.folders)

    assert [bucket_claims_key(RAW.place)] == [entry.key for entry in await store.scan()]
    proven = [await claims.is_proven(owner, RAW) for owner in configured.folders]
    assert [True, True, False] == proven


async def test_one_of_many_replicas_gets_a_folder(store: KeyValueStore, configured: Configured) -> None:
    replicas = [FolderClaims(store, folder_of=configured.folder_of, clock=lambda: configured.now) for _ in range(8)]

    taken = await asyncio.gather(
        *(
            claims.take((f"app{number}", "x"), Folder(RAW.place, "a/b" if number % 2 else "a"), proven=True)
            for number, claims in enumerate(replicas)
        ),
        return_exceptions=True,
    )

    assert 1 == taken.count(None)
    assert {ConflictError} == {type(one) for one in taken if one is not None}


async def test_claims_of_an_app_in_a_bucket_are_bounded(claims: FolderClaims) -> None:
    for number in range(OF_AN_APP):
        await claims.take(("shop", f"e{number}"), Folder(RAW.place, f"f{number}"), proven=True)

    with pytest.raises(ConflictError, match="at most 100 exports of an app"):
        await claims.take(("shop", "more"), Folder(RAW.place, "more"), proven=True)
    await claims.take(RIVAL, Folder(RAW.place, "rival"), proven=True)
