"""
Fixtures that every test may use. NATS is always a real server; nothing of the machine's environment leaks in.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio
from asyncssh import generate_private_key

from millrace.nats_servers.server import NatsServer
from shared.config.registry import Registry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.config.tokens import TOKENS, Token, new_token, token_hash
from shared.contracts import streams
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import ensure, ensure_consumer
from shared.runtime import logs
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.run_service import PUSH_READER, RunService, running, settings_of
from support.servers.moto import MotoServer

# A machine that does other work as well is slow to draw examples, and that is no fault of a test.
hypothesis.settings.register_profile("millrace", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("millrace")

KINDS_OF_TEST = ("unit", "contracts", "integration", "e2e")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `tests/e2e/test_fuzz.py`."""
    parser.addoption("--fuzz-seconds", type=float, default=0.0, help="run tests/e2e/test_fuzz.py for that long")
    parser.addoption("--fuzz-seed", type=int, default=1, help="its source of chance")
    parser.addoption("--fuzz-report", default="", help="the file that gets its counts and findings while it runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The marker of a test comes from its folder, never by hand."""
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0]
        if folder in KINDS_OF_TEST:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine, and no AWS credentials, reach a test."""
    for name in list(os.environ):
        if name.startswith(("MILLRACE_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Logs go where pytest captures them."""
    logs.configure(service="test", level="debug", format="console")


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A real server with JetStream, on a free port, without users."""
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection to `nats_server` under the name `test`."""
    async with connect("test", nats_server.url, metrics=Metrics(), wait_s=5) as bus:
        yield bus


@pytest.fixture
async def push(bus: Bus, settings: Settings) -> Bus:
    """`bus`, on a server that has the stream PUSH and its durable consumer `test`."""
    await ensure(bus, streams.PUSH, settings)
    await ensure_consumer(bus, PUSH_READER)
    return bus


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def moto_process() -> AsyncIterator[MotoServer]:
    """One moto for the whole run, because it takes seconds to start."""
    async with MotoServer() as server:
        yield server


@pytest.fixture
async def moto(moto_process: MotoServer) -> MotoServer:
    """AWS, empty."""
    await moto_process.reset()
    return moto_process


@pytest.fixture
def secret_key() -> str:
    """A fresh Fernet key."""
    return generate_key()


@pytest.fixture
def secrets(secret_key: str) -> SecretStore:
    """The secret store that `settings` describes."""
    return SecretStore([secret_key])


@pytest.fixture
def settings(nats_server: NatsServer, secret_key: str, tmp_path: Path) -> Settings:
    """Settings of a service that runs inside the test, on free ports."""
    return Settings(
        nats_url=nats_server.url,
        secret_keys=secret_key,
        http_port=0,
        data_dir=str(tmp_path / "data"),
        allow_private_endpoints=True,
        stop_deadline_s=10,
    )


@pytest.fixture
def registry(bus: Bus, secrets: SecretStore) -> Registry:
    """Configuration, as a service reads and writes it."""
    return Registry(bus, secrets, service="test", relist_s=30)


@pytest.fixture(scope="session")
def host_keys() -> bytes:
    """Host keys of an SFTP server: an RSA key takes half a second to make."""
    keys = (generate_private_key("ssh-ed25519"), generate_private_key("ssh-rsa", key_size=2048))
    return b"".join(key.export_private_key() for key in keys)


@pytest.fixture
def run_service(settings: Settings, host_keys: bytes) -> RunService:
    """Run a service inside the test: `async with run_service(SERVICE) as service: service.url`."""
    file = Path(settings.data_dir) / "ftp" / "host_key"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(host_keys)
    return lambda service: running(service, settings_of(service, settings))


@pytest.fixture
async def admin(registry: Registry, nats_server: NatsServer, settings: Settings) -> dict[str, str]:
    """Headers of an operator."""
    await ensure(registry.bus, streams.CONFIG, settings)
    return await _issue(registry, "admin")


@pytest.fixture
async def shop(registry: Registry, admin: dict[str, str]) -> dict[str, str]:
    """Headers of the tenant `shop`."""
    return await _issue(registry, "app:shop")


@pytest.fixture
async def rival(registry: Registry, admin: dict[str, str]) -> dict[str, str]:
    """Headers of another tenant."""
    return await _issue(registry, "app:rival")


@pytest.fixture
async def metrics_token(registry: Registry, admin: dict[str, str]) -> dict[str, str]:
    """Headers of a scraper of metrics."""
    return await _issue(registry, "metrics")


async def _issue(registry: Registry, scope: str) -> dict[str, str]:
    token = new_token()
    await registry.put(TOKENS, token_hash(token), "", Token(scopes=(scope,), created_at=datetime.now(UTC)))
    return {"Authorization": f"Bearer {token}"}
