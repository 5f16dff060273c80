"""Fixtures of storage: the running service, and an HTTP client of it."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from msgspec import structs

from shared.runtime.settings import Settings
from shared.service import RunningService
from storage.app import SERVICE
from storage.config import StorageSettings
from support.run_service import RunService


@pytest.fixture
def settings(settings: Settings) -> StorageSettings:
    """Settings of a storage that runs inside the test, on free ports."""
    return StorageSettings(**structs.asdict(settings))


@pytest.fixture
async def storage(run_service: RunService) -> AsyncIterator[RunningService]:
    async with run_service(SERVICE) as running:
        yield running


@pytest.fixture
async def http(storage: RunningService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(storage.url) as session:
        yield session
