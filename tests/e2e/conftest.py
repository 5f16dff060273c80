"""A whole mesh of real processes, and a stand-in for AWS beside it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from support.servers.mesh import RunningMesh
from support.servers.moto import MotoServer


@pytest.fixture
async def mesh(tmp_path: Path, moto: MotoServer) -> AsyncIterator[RunningMesh]:
    """The mesh of `millrace up`, which may talk to moto."""
    folder = MeshFolder(tmp_path / "mesh")
    settings = {"allow_private_endpoints": True, "log_format": "json"}
    with folder.lock():
        async with LocalMesh(folder, settings=settings) as local:
            token = {"Authorization": f"Bearer {folder.admin_token()}"}
            async with aiohttp.ClientSession(headers=token) as http:
                yield RunningMesh(local, folder, moto, http)
