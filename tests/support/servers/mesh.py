"""A whole mesh of real processes, as a test sees it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from millrace.machine.child_process import start_child
from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from millrace.nats_servers.config import seed_file
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.runtime.settings import child_environment
from shared.runtime.telemetry import Metrics
from support.servers.moto import MotoServer
from support.waiting import until


class RunningMesh:
    """A running mesh as a test sees it: an operator's HTTP session, and the means to kill and start again."""

    def __init__(self, local: LocalMesh, folder: MeshFolder, moto: MotoServer, http: aiohttp.ClientSession) -> None:
        self.local = local
        self.folder = folder
        self.moto = moto
        self.http = http

    def url(self, service: str, path: str) -> str:
        return self.folder.addresses().services[service] + path

    @property
    def sftp(self) -> tuple[str, int]:
        host, _, port = self.folder.addresses().sftp.rpartition(":")
        return host, int(port)

    async def call(self, method: str, service: str, path: str, **options: Any) -> Any:
        """Call a service and return the decoded answer. Any status but 2xx fails with the service's text."""
        async with self.http.request(method, self.url(service, path), **options) as response:
            said = await response.text()
            assert response.status < 300, f"{method} {path}: {response.status} {said}"
            return await response.json() if said else None

    async def kill(self, service: str) -> None:
        """SIGKILL: the process gets no chance to do anything."""
        await self.local.children[service].kill()

    async def start(self, service: str) -> None:
        """Start it again where it was, on its port."""
        await self.local.restart(service)

    async def terminate(self, service: str) -> int:
        """SIGTERM, and the exit code."""
        child = self.local.children[service]
        os.kill(child.pid, signal.SIGTERM)
        async with asyncio.timeout(40):
            return await child.wait()

    @asynccontextmanager
    async def replica(self, service: str) -> AsyncIterator[str]:
        """Run one more process of a service beside the mesh's own and yield its URL; kill it at the end."""
        folder = self.folder.root / f"{service}-replica"
        folder.mkdir()
        announcement = folder / "announce.json"
        environment = child_environment(
            nats_url=self.folder.addresses().nats,
            nats_seed_file=seed_file(self.folder.keys, service),
            secret_keys_file=self.folder.secret_keys_file,
            http_port=0,
            announce_file=announcement,
            data_dir=folder,
            allow_private_endpoints=True,
        )
        command = (sys.executable, "-P", "-m", service.replace("-", "_"))
        child = await start_child(f"{service}-replica", command, environment=environment, log=folder / "log")
        try:
            await until(lambda: announcement.exists() or not child.running)
            yield json.loads(announcement.read_text())["http"]
        finally:
            await child.kill()

    @asynccontextmanager
    async def bus(self, user: str) -> AsyncIterator[Bus]:
        """A connection as one of the mesh's own users."""
        seed = seed_file(self.folder.keys, user).read_text().strip()
        async with connect(user, self.folder.addresses().nats, seed=seed, metrics=Metrics(), wait_s=10) as bus:
            yield bus

    async def until_ready(self, service: str) -> None:
        async with asyncio.timeout(40):
            while True:
                try:
                    async with self.http.get(self.url(service, "/readyz")) as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
