"""
A real cluster of nats-server nodes on loopback, with the interface of `millrace.nats_servers.server.NatsServer`.

Configuration: what `millrace.nats_servers.config` renders for a node; the nodes authenticate to each other with a
secret. Implementation: a node has to name the others before any runs, so ports are picked first; where one is taken
meanwhile, all are picked anew. Considerations: ready means that every node says so, which takes an elected leader.
Nodes are known by name, so a later cluster on the same folder finds its data on whatever ports.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from millrace.machine.child_process import Child
from millrace.machine.ports import check_free, free_ports
from millrace.nats_servers.config import (
    CLUSTER_PASSWORD_VARIABLE,
    CLUSTER_ROUTES_VARIABLE,
    CLUSTER_USER,
    SYNC,
    ServerConfig,
    public_key,
    quote,
)
from millrace.nats_servers.server import HOST, STOP_S, start_server
from shared.errors import UnavailableError

READY_S = 30.0
ATTEMPTS = 3
ANSWER = aiohttp.ClientTimeout(total=2)
IN_USE = "address already in use"


class NatsCluster:
    """
    `nodes` servers with JetStream, stopped when the block is left.

    Args:
        directory: Holds a folder for each node; a later cluster on it finds the data again.
        users: NKey seed by user of `shared.contracts.grants.GRANTS`; None lets everybody in, for tests.
        ports: Client ports to take, one for each node, where they are known from an earlier run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 3,
        users: Mapping[str, str] | None = None,
        ports: Sequence[int] = (),
        sync_interval: str = SYNC,
    ) -> None:
        self.directory = directory
        self.ports = list(ports)
        self._nodes = nodes
        self._keys = None if users is None else {user: public_key(seed) for user, seed in users.items()}
        self._sync_interval = sync_interval
        self.password = secrets.token_urlsafe(32)
        self._fixed = bool(ports)
        self._cluster_ports: list[int] = []
        self._monitor_ports: list[int] = []
        self.children: list[Child] = []

    @property
    def url(self) -> str:
        return ",".join(f"nats://{HOST}:{port}" for port in self.ports)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """
        Start every node and wait until they have a leader.

        Raises:
            ConflictError: One of the given ports is taken.
            UnavailableError: A node ended, or they were not ready in time; says what the log says.
        """
        if self._fixed:
            for port in self.ports:
                check_free(port, "a node of the NATS cluster")
        for attempt in range(1, ATTEMPTS + 1):
            self._pick_ports()
            try:
                self.children = []
                for node in range(self._nodes):
                    self.children.append(await self._start(node))
                await self._wait_ready(*range(self._nodes))
                return
            except UnavailableError as error:
                await self.stop()
                if IN_USE not in error.message or self._fixed or attempt == ATTEMPTS:
                    raise
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """End every node in order."""
        await asyncio.gather(*(child.stop(STOP_S) for child in self.children))

    async def kill(self, node: int = 0) -> None:
        """End one node as a power cut would: kill -9."""
        await self.children[node].kill()

    async def restart(self, node: int = 0) -> None:
        """Start one node again, after `kill`, and wait until it is well. Raises `UnavailableError`."""
        await self.children[node].stop(STOP_S)
        self.children[node] = await self._start(node)
        await self._wait_ready(node)

    def _pick_ports(self) -> None:
        picked = free_ports(3 * self._nodes)
        if not self._fixed:
            self.ports = picked[: self._nodes]
        self._cluster_ports = picked[self._nodes : 2 * self._nodes]
        self._monitor_ports = picked[2 * self._nodes :]

    async def _start(self, node: int) -> Child:
        name = f"nats-{node + 1}"
        folder = self.directory / name
        config = ServerConfig(
            store=str(folder / "jetstream"),
            host=HOST,
            port=self.ports[node],
            server_name=name,
            monitor_port=self._monitor_ports[node],
            cluster_port=self._cluster_ports[node],
            sync_interval=self._sync_interval,
        )
        routes = (quote(f"nats://{CLUSTER_USER}:{self.password}@{HOST}:{port}") for port in self._cluster_ports)
        variables = {
            CLUSTER_PASSWORD_VARIABLE: quote(self.password),
            CLUSTER_ROUTES_VARIABLE: f"[{', '.join(routes)}]",
        }
        return await start_server(name, config, self._keys, folder, folder / f"{name}.log", variables)

    async def _wait_ready(self, *nodes: int) -> None:
        children = [self.children[node] for node in nodes]
        ports = [self._monitor_ports[node] for node in nodes]
        try:
            async with asyncio.timeout(READY_S), aiohttp.ClientSession() as http:
                while not all([await _is_ready(http, port) for port in ports]):
                    for child in children:
                        if not child.running:
                            raise child.ended("before it was ready")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logs = ", ".join(str(child.log) for child in children)
            message = f"the NATS cluster was not ready within {READY_S:.0f} s; its logs are {logs}"
            raise UnavailableError(message) from None


async def _is_ready(http: aiohttp.ClientSession, port: int) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with http.get(f"http://{HOST}:{port}/healthz", timeout=ANSWER) as answer:
            return answer.status == 200
    return False
