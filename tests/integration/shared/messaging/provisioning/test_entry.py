"""Provisioning by a container of a service, as compose.yaml does it: a process of its own, on a server with users."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer
from shared.contracts.consumers import CONSUMERS
from shared.contracts.grants import PROVISION
from shared.contracts.streams import BUCKETS, STREAMS
from shared.messaging.connection import connect
from shared.messaging.provisioning.looking import find_problems
from shared.runtime.settings import child_environment
from shared.runtime.telemetry import Metrics

pytestmark = pytest.mark.timeout(180)


async def provision_by_service(**settings: object) -> tuple[int | None, str]:
    """Run `python -m storage --provision`, and return its exit code and the last line of its log."""
    command = (sys.executable, "-P", "-m", "storage", "--provision")
    environment = child_environment(**settings)
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=STDOUT)
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode().splitlines()[-1]


async def test_container_of_a_service_provisions_with_the_key_of_provision_alone(tmp_path: Path) -> None:
    seeds = ensure_seeds(tmp_path / "keys")
    async with NatsServer(tmp_path / "nats", users=seeds) as server:
        own = {"nats_url": server.url, "nats_seed_file": tmp_path / "keys" / "storage.nk"}
        code, last = await provision_by_service(**own)
        assert 1 == code
        assert "expected the seed of the NATS user provision" in last

        given = own | {"nats_seed_file": tmp_path / "keys" / f"{PROVISION}.nk", "stream_max_bytes": "PUSH=2097152"}
        for _ in range(2):
            code, last = await provision_by_service(**given)
            assert 0 == code, last

        async with connect(PROVISION, server.url, seed=seeds[PROVISION], metrics=Metrics(), wait_s=10) as bus:
            assert [] == await find_problems(bus, (*STREAMS, *BUCKETS), CONSUMERS)
            assert 2097152 == (await bus.js.stream_info("PUSH")).config.max_bytes
