"""
The OpenAPI document of storage against its service, by schemathesis: every check that it has, over requests that the
document allows and over requests that it does not.

Schemathesis runs as a process of its own, because it blocks and the service lives in the test's loop.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from servers.services import RunService
from servers.storage import DEMO, form, stored
from storage.app import SERVICE

SEED = 1
"""Fixed, so that a finding is found again."""
EXAMPLES = 10
"""Of each kind for each operation, beside the fixed ones at the edges of every schema."""
DEADLINE_S = 100.0

HOOKS = f"""
from pathlib import Path

import schemathesis
from hypothesis import strategies

# No schema says that a file has to be a picture, and random bytes are none.
photo = Path({str(DEMO / "photo.jpg")!r}).read_bytes()
schemathesis.openapi.format("binary", strategies.just(photo))
"""

CONFIG = """
hooks = "hooks.py"

# What a connector must be is not all in its schema: which keys go together, which addresses are let in.
[[operations]]
include-path-regex = "/connectors/"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]

# An object that is there, so that not only 404 is seen.
[[operations]]
include-method = "GET"
include-path-regex = "/[{{]id[}}]$"
parameters = {{ "path.app_key" = "shop", "path.id" = "{id}" }}
"""


@pytest.mark.timeout(DEADLINE_S + 20)
async def test_schemathesis_finds_nothing(run_service: RunService, admin: dict[str, str], tmp_path: Path) -> None:
    async with run_service(SERVICE) as service:
        async with aiohttp.ClientSession(service.url) as http:
            reply = await stored(http, admin, form())
        (tmp_path / "hooks.py").write_text(HOOKS)
        (tmp_path / "schemathesis.toml").write_text(CONFIG.format(id=reply.id))

        code, told = await run_schemathesis(tmp_path, f"{service.url}/openapi.json", admin)

        assert 0 == code, told


async def run_schemathesis(folder: Path, url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", "schemathesis.toml", "--no-color", "run", url),
        *("--header", f"Authorization: {headers['Authorization']}"),
        *("--seed", str(SEED), "--max-examples", str(EXAMPLES)),
        *("--checks", "all", "--continue-on-failure", "--generation-database", "none"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, told.decode()
