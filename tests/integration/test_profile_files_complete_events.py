"""A profile file that a customer uploads by SFTP shows in the next event's record: through both services."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import aiohttp
import pytest

from ftp_gateway.app import SERVICE as FTP_GATEWAY
from hooks.app import SERVICE as HOOKS
from support.clients.ftp_gateway import Gateway, process
from support.clients.hooks import HooksClient, holds, open_client
from support.run_service import RunService
from support.servers.kinesis import FaultyKinesis
from support.waiting import until


@pytest.fixture
async def kinesis() -> AsyncIterator[FaultyKinesis]:
    async with FaultyKinesis() as server:
        server.create_stream("orders")
        yield server


@pytest.fixture
async def gateway(run_service: RunService, admin: dict[str, str]) -> AsyncIterator[Gateway]:
    async with run_service(FTP_GATEWAY) as running, aiohttp.ClientSession(headers=admin) as http:
        gateway = Gateway(running, http)
        await gateway.put("/v1/apps/shop", {"settle_s": 0.05})
        await gateway.user()
        yield gateway


@pytest.fixture
async def client(run_service: RunService, shop: dict[str, str], kinesis: FaultyKinesis) -> AsyncIterator[HooksClient]:
    """Tenant `shop` with a connector and a hook for everything."""
    async with run_service(HOOKS) as running, open_client(running.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        yield client


async def test_a_profile_file_uploaded_by_sftp_shows_in_the_next_event(
    gateway: Gateway, client: HooksClient, kinesis: FaultyKinesis
) -> None:
    numbers = count(1)

    async def attributes_of_next_event() -> dict[str, Any]:
        number = next(numbers)
        await client.post([{"id": f"e{number}", "code": "c", "user_id": "u", "ext_id": "12345"}])
        records = await kinesis.wait_records("orders", holds(number))
        found: dict[str, Any] = records[-1].value["user"]["attributes"]
        return found

    async def shown(wanted: dict[str, Any]) -> bool:
        return await attributes_of_next_event() == wanted

    # From now on the service remembers what it knows of the user, which is nothing.
    assert {} == await attributes_of_next_event()
    async with gateway.sftp() as files:
        await process(files, "/Profile/first.txt", '~~~city~age\n12345~~~"İzmir"~25\n'.encode())
        await until(lambda: shown({"city": "İzmir", "age": 25}))
        await process(files, "/Profile/second.txt", b'~~~city\n12345~~~"Ankara"\n')
        await until(lambda: shown({"city": "Ankara", "age": 25}))
