"""Fixtures of storage: the running service, and an HTTP client of it."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from shared.service import Running
from storage.app import SERVICE
from support.run_service import RunService


@pytest.fixture
async def storage(run_service: RunService) -> AsyncIterator[Running]:
    async with run_service(SERVICE) as running:
        yield running


@pytest.fixture
async def http(storage: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(storage.url) as session:
        yield session
