"""Fixtures of the hooks service: it runs in the test, with a Kinesis and a receiver of webhooks that fail on demand."""

from collections.abc import AsyncIterator

import pytest

from hooks import app
from hooks.app import SERVICE
from hooks.assignment.plan import LeaseTiming
from shared.service import RunningService
from support.clients.hooks import HooksClient, open_client
from support.run_service import RunService
from support.servers.kinesis import FaultyKinesis
from support.servers.webhooks import Receiver


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that outlast a machine that stands still. Tests of leases have shorter ones."""
    monkeypatch.setattr(app, "TIMING", LeaseTiming(stop_s=60, expire_s=100))


@pytest.fixture
async def kinesis() -> AsyncIterator[FaultyKinesis]:
    """A Kinesis with the stream `orders` of four shards."""
    async with FaultyKinesis() as server:
        server.create_stream("orders", shards=4)
        yield server


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def hooks(run_service: RunService) -> AsyncIterator[RunningService]:
    """The service."""
    async with run_service(SERVICE) as service:
        yield service


@pytest.fixture
async def client(hooks: RunningService, shop: dict[str, str]) -> AsyncIterator[HooksClient]:
    """Tenant `shop`, with nothing configured."""
    async with open_client(hooks.url, shop) as client:
        yield client
