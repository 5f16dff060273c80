"""External ids in a real bucket of NATS."""

import asyncio
import re

import pytest

from exporter.access.external_ids import EXTERNAL_IDS, ExternalIds
from shared.config.registry import Registry
from shared.config.secret_store import SecretStore
from shared.contracts import streams
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings


@pytest.fixture
async def replicas(bus: Bus, secrets: SecretStore, settings: Settings) -> list[ExternalIds]:
    await ensure(bus, streams.CONFIG, settings)
    return [ExternalIds(Registry(bus, secrets, service="exporter", relist_s=30)) for _ in range(4)]


async def test_app_has_one_id_when_many_replicas_make_it_at_once(replicas: list[ExternalIds]) -> None:
    made = await asyncio.gather(*(replica.of_app("shop") for replica in replicas for _ in range(8)))

    assert 1 == len(set(made))
    assert re.fullmatch(r"shop:[0-9a-f]{32}", made[0])


async def test_id_stays_as_it_is_and_is_the_apps_own(replicas: list[ExternalIds]) -> None:
    first = await replicas[0].of_app("shop")
    others = [await replica.of_app("shop") for replica in replicas]
    rival = await replicas[0].of_app("rival")

    assert {first} == set(others)
    assert first.removeprefix("shop:") != rival.removeprefix("rival:")


async def test_id_that_nobody_signed_is_not_used(replicas: list[ExternalIds], registry: Registry, bus: Bus) -> None:
    await bus.publish(streams.CONFIG.subject_of(EXTERNAL_IDS.key("shop")), b'{"external_id":"shop:known-to-others"}')

    with pytest.raises(Exception, match="sign"):
        await replicas[0].of_app("shop")


async def test_removed_id_is_made_anew(replicas: list[ExternalIds]) -> None:
    with pytest.raises(NotFoundError):
        await replicas[0].remove("shop")
    before = await replicas[0].of_app("shop")
    await replicas[0].remove("shop")

    after = await replicas[1].of_app("shop")

    assert before != after
    assert after == await replicas[2].of_app("shop")
