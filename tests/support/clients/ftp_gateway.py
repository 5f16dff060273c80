"""Client of the ftp gateway: customers over SFTP, operators over HTTP, and readers of its streams."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import msgspec
import paramiko

from ftp_gateway.app import SERVICE
from ftp_gateway.config import FtpGatewaySettings
from millrace.nats_servers.server import NatsServer
from shared.config.registry import Registry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.config.tokens import TOKENS, Token, new_token, token_hash
from shared.contracts import streams, subjects
from shared.contracts.messages import FileChanged, PushBatch, PushRow, decode
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings, child_environment
from shared.runtime.telemetry import Metrics
from shared.service import RunningService
from support.run_service import provision_for, running
from support.stored_messages import messages

PASSWORD = "correct-horse-battery"
ROW = b"1;Hello;https://shop.example\n"


class Gateway:
    """Client of the running service. Each call signs in as a customer, or sends the operator's token."""

    def __init__(self, running: RunningService, http: aiohttp.ClientSession) -> None:
        self.running = running
        self.http = http
        host, _, port = running.mesh.addresses["sftp"].rpartition(":")
        self.host, self.port = host, int(port)

    async def put(self, path: str, value: object) -> dict[str, Any]:
        """Return the answer to a `PUT`. Fails on any status but 200."""
        async with self.http.put(f"{self.running.url}{path}", json=value) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def user(self, name: str = "nightly", *, app_key: str = "shop", **value: object) -> dict[str, Any]:
        """Create or change a user. Without fields its password is `PASSWORD`."""
        return await self.put(f"/v1/apps/{app_key}/ftp-users/{name}", value or {"password": PASSWORD})

    async def files(self, **asked: str | int) -> list[dict[str, Any]]:
        """Return `GET …/files` of app `shop`."""
        async with self.http.get(f"{self.running.url}/v1/apps/shop/files", params=asked) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, list[dict[str, Any]]] = await answer.json()
            return found["files"]

    async def file(self, file_id: str, *, status: int = 200) -> dict[str, Any]:
        """Return `GET …/files/{file_id}` of app `shop`."""
        async with self.http.get(f"{self.running.url}/v1/apps/shop/files/{file_id}") as answer:
            assert answer.status == status, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    @asynccontextmanager
    async def connect(self, login: str = "shop.nightly", **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Open a signed-in connection of asyncssh."""
        arguments = {"password": PASSWORD, "known_hosts": None, "config": None, "client_keys": None} | options
        async with asyncssh.connect(self.host, self.port, username=login, **arguments) as connection:
            yield connection

    @asynccontextmanager
    async def sftp(self, login: str = "shop.nightly") -> AsyncIterator[asyncssh.SFTPClient]:
        """Open an SFTP session of asyncssh."""
        async with self.connect(login) as connection, connection.start_sftp_client() as client:
            yield client

    @contextmanager
    def paramiko(self) -> Iterator[paramiko.SFTPClient]:
        """Open an SFTP session of paramiko. Blocks: for a thread."""
        transport = paramiko.Transport((self.host, self.port))
        try:
            transport.connect(username="shop.nightly", password=PASSWORD)
            client = paramiko.SFTPClient.from_transport(transport)
            assert client is not None
            yield client
        finally:
            transport.close()


StartGateway = Callable[..., AbstractAsyncContextManager[Gateway]]
"""The fixture `start_gateway`; keywords change settings."""


@asynccontextmanager
async def open_gateway(directory: Path, host_keys: bytes) -> AsyncIterator[tuple[Gateway, Bus]]:
    """
    Start a gateway with a NATS server of its own, for all tests of a module; each test uses an app of its own.

    Args:
        host_keys: The value of the fixture of that name.
    """
    secret_key, token = generate_key(), new_token()
    keys = directory / "data" / "ftp" / "host_key"
    keys.parent.mkdir(parents=True)
    keys.write_bytes(host_keys)
    async with (
        NatsServer(directory / "nats") as server,
        connect("test", server.url, metrics=Metrics(), wait_s=5) as bus,
    ):
        settings = FtpGatewaySettings(
            nats_url=server.url,
            secret_keys=secret_key,
            http_port=0,
            sftp_port=0,
            data_dir=str(directory / "data"),
            allow_private_endpoints=True,
            stop_deadline_s=10,
        )
        await ensure(bus, streams.CONFIG, settings)
        registry = Registry(bus, SecretStore([secret_key]), service="test", relist_s=30)
        issued = Token(scopes=("admin",), created_at=datetime.now(UTC))
        await registry.put(TOKENS, token_hash(token), "", issued)
        async with (
            running(SERVICE, settings) as service,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        ):
            yield Gateway(service, http), bus


async def write(client: asyncssh.SFTPClient, path: str | bytes, data: bytes = ROW) -> None:
    """Upload a file by one write."""
    async with client.open(path, "wb") as file:
        await file.write(data)


async def wait_gone(client: asyncssh.SFTPClient, path: str) -> None:
    """Wait until the file has disappeared, which shows that it is processed."""
    async with asyncio.timeout(10):
        while await client.exists(path):
            await asyncio.sleep(0.02)


async def read(client: asyncssh.SFTPClient, path: str) -> bytes:
    """Read a whole file."""
    async with client.open(path, "rb") as file:
        data = await file.read()
        assert isinstance(data, bytes)
        return data


async def process(client: asyncssh.SFTPClient, path: str, data: bytes) -> dict[str, Any]:
    """Upload under the final name, wait until the file is processed, and return its `result.json`."""
    await write(client, path, data)
    await wait_gone(client, path)
    name = path.rpartition("/")[2]
    result: dict[str, Any] = msgspec.json.decode(await read(client, f"/errors/{name}.result.json"))
    return result


async def events(bus: Bus, state: subjects.FileState, app_key: str = "shop") -> list[FileChanged]:
    """Return the events of one state."""
    found = await messages(bus, streams.FILES, subjects.ftp_file(app_key, state))
    return [decode(message.data, FileChanged) for message in found]


async def batches(bus: Bus, app_key: str = "shop") -> list[PushBatch]:
    """Return the messages with push commands."""
    found = await messages(bus, streams.PUSH, subjects.push_send(app_key, "*"))
    return [decode(message.data, PushBatch) for message in found]


async def rows(bus: Bus, app_key: str = "shop") -> list[PushRow]:
    """Return the push commands, row by row."""
    return [row for batch in await batches(bus, app_key) for row in batch.rows]


@asynccontextmanager
async def gateway_process(settings: Settings, announce: Path) -> AsyncIterator[tuple[Process, int]]:
    """Start a replica as a process, and kill it at the end. Yields the process and its SFTP port once it is ready."""
    await provision_for(SERVICE, settings)
    environment = child_environment(
        nats_url=settings.nats_url,
        secret_keys=settings.secret_keys,
        http_port=0,
        sftp_port=0,
        data_dir=settings.data_dir,
        announce_file=announce,
        log_level="warning",
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ftp_gateway", env=environment)
    try:
        while (port := _announced(announce)) is None:
            assert process.returncode is None, "the service ended while it started"
            await asyncio.sleep(0.05)
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _announced(path: Path) -> int | None:
    return int(msgspec.json.decode(path.read_bytes())["sftp"].rpartition(":")[2]) if path.exists() else None
