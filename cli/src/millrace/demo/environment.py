"""Mesh and moto of the demo in a folder of their own, with the connections that the steps use."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from millrace.demo.moto import CustomerAccount, open_account, run_moto
from millrace.demo.push_engine import PushEngine
from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from millrace.mesh.service_api import ServiceApi, open_api
from shared.contracts.messages import Event
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.runtime.telemetry import Metrics

APP = "shop"
STAND_IN_SETTINGS = {"allow_private_endpoints": True, "events_max_bytes": 256 << 20}
"""The demo's connectors name loopback, where moto is. Its events need no room for three days."""


class DemoEnvironment:
    """
    Parts that the steps share, and results that a step leaves for a later one. An async context manager.

    `inputs` are the files of the repository's demo/. `open` starts everything; leaving the block ends it.
    """

    api: ServiceApi
    account: CustomerAccount
    publisher: Bus
    engine: PushEngine
    moto_url: str

    def __init__(self, folder: MeshFolder, inputs: Path) -> None:
        self.folder = folder
        self.inputs = inputs
        self.events: list[Event] = []
        self.pushes = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open(self) -> LocalMesh:
        """Start moto and the mesh side by side, then sign in. Raises `MillraceError` naming what did not start."""
        self._stack.enter_context(self.folder.lock())
        enter = self._stack.enter_async_context
        mesh = LocalMesh(self.folder, settings=STAND_IN_SETTINGS)
        async with asyncio.TaskGroup() as starting:
            moto = starting.create_task(enter(run_moto(self.folder.log("moto"))))
            starting.create_task(enter(mesh))
        self.moto_url = moto.result()
        addresses, seeds = self.folder.addresses(), self.folder.seeds()
        self.api = await enter(open_api(addresses.services, self.folder.admin_token()))
        self.account = await enter(open_account(self.moto_url))
        self.publisher = await enter(
            connect("publisher", addresses.nats, seed=seeds["publisher"], metrics=Metrics(), wait_s=5)
        )
        engine = await enter(
            connect("push-engine", addresses.nats, seed=seeds["push-engine"], metrics=Metrics(), wait_s=5)
        )
        self.engine = PushEngine(engine)
        return mesh
