"""
The OpenAPI document of each service against the service, by schemathesis: every check that it has, over requests that
the document allows and over requests that it does not.

Schemathesis runs as a process of its own, because it blocks and the service lives in the test's loop.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from exporter.app import SERVICE as EXPORTER
from ftp_gateway.app import SERVICE as FTP_GATEWAY
from hooks.app import SERVICE as HOOKS
from shared.service import Service
from storage.app import SERVICE as STORAGE
from support.clients.storage import DEMO, form, stored
from support.run_service import RunService

SEED = 1
"""Fixed, so that a finding is found again."""
EXAMPLES = 5
"""Of each kind for each operation, beside the fixed ones at the edges of every schema."""
DEADLINE_S = 100.0

PLUGIN = f"""
from pathlib import Path

import schemathesis
from hypothesis import strategies

# No schema says that a file has to be a picture, and random bytes are none.
photo = Path({str(DEMO / "photo.jpg")!r}).read_bytes()
schemathesis.openapi.format("binary", strategies.just(photo))
"""

CONFIG = """
hooks = "plugin.py"

[phases.coverage]
unexpected-methods = ["OPTIONS"]

# 413 refuses as well.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "429"]

# What a configuration must be is not all in its schema: which fields go together, which addresses are let in.
[[operations]]
include-method = "PUT"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]

[[operations]]
include-path-regex = "/test$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""

IN_HOOKS = """
# JSON Schema counts 1.0 among the integers, which we do not take.
[[operations]]
include-path-regex = "/(preview|replay)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]

# `since` comes before `until`.
[[operations]]
include-path-regex = "/dead-letters$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]

# The app of an event is the path's, and bad events are told one by one: good ones beside them are taken.
[[operations]]
include-path-regex = "/events$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
checks.negative_data_rejection.enabled = false
"""

IN_FTP_GATEWAY = """
# No schema says what an address is, and generations count from 1.
[[operations]]
include-path-regex = "^/v1/(bans|host-keys)/"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""

IN_EXPORTER = """
# As in hooks, and `before` names a run that is there.
[[operations]]
include-path-regex = "/(replays|runs)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""

IN_STORAGE = """
# An object that is there, so that not only 404 is seen.
[[operations]]
include-method = "GET"
include-path-regex = "/[{{]id[}}]$"
parameters = {{ "path.app_key" = "shop", "path.id" = "{id}" }}
"""


@pytest.mark.timeout(DEADLINE_S + 20)
@pytest.mark.parametrize("service", [STORAGE, HOOKS, FTP_GATEWAY, EXPORTER], ids=lambda service: service.name)
async def test_schemathesis_finds_nothing(
    service: Service, run_service: RunService, admin: dict[str, str], tmp_path: Path
) -> None:
    async with run_service(service) as running:
        config = CONFIG
        if service is HOOKS:
            config += IN_HOOKS
        if service is FTP_GATEWAY:
            config += IN_FTP_GATEWAY
        if service is EXPORTER:
            config += IN_EXPORTER
        if service is STORAGE:
            async with aiohttp.ClientSession(running.url) as http:
                config += IN_STORAGE.format(id=(await stored(http, admin, form())).id)
        (tmp_path / "plugin.py").write_text(PLUGIN)
        (tmp_path / "schemathesis.toml").write_text(config)

        code, told = await run_schemathesis(tmp_path, f"{running.url}/openapi.json", admin)

        assert 0 == code, told


async def run_schemathesis(folder: Path, url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Run schemathesis. Returns its exit code and its output."""
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
