"""
Fixtures of the ftp gateway. A file that needs a variant overrides one of them: `settings`, `app_config` or `gateway`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from ftp_gateway.app import SERVICE
from ftp_gateway.config import FtpGatewaySettings
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import Gateway, StartGateway
from support.run_service import RunService, running


@pytest.fixture
def settings(settings: Settings) -> FtpGatewaySettings:
    """Settings of a gateway that runs inside the test, on free ports."""
    return FtpGatewaySettings(**structs.asdict(settings), sftp_port=0)


@pytest.fixture
async def http(admin: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP as an operator."""
    async with aiohttp.ClientSession(headers=admin) as http:
        yield http


@pytest.fixture
def app_config() -> dict[str, object]:
    """Configuration of the app `shop`: a file is complete soon after it was closed."""
    return {"settle_s": 0.05}


@pytest.fixture
def start_gateway(
    settings: FtpGatewaySettings, run_service: RunService, http: aiohttp.ClientSession, app_config: dict[str, object]
) -> StartGateway:
    """Start a gateway with the user `shop.nightly`: `async with start_gateway(sftp_idle_s=1.0) as gateway`."""

    @asynccontextmanager
    async def start(**changed: Any) -> AsyncIterator[Gateway]:
        async with running(SERVICE, structs.replace(settings, **changed)) as service:
            gateway = Gateway(service, http)
            await gateway.put("/v1/apps/shop", app_config)
            await gateway.user()
            yield gateway

    return start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    """A gateway with the user `shop.nightly`."""
    async with start_gateway() as gateway:
        yield gateway
