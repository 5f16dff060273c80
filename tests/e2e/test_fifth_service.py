"""
A fifth service, added to a copy of the sources by the recipe of CONTRIBUTING.md and by nothing else.

The recipe is a folder, a row in the table of services, a block in compose.yaml and the lines of pyproject.toml.
"""

import asyncio
import json
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import pytest

from millrace.machine.ports import free_ports
from millrace.mesh.folder import MeshFolder
from millrace.verbs.up import USUAL_PORTS
from support.checkout_copy import REPOSITORY, CheckoutCopy

WAIT_S = 90.0
pytestmark = pytest.mark.timeout(300)

PROJECT = """\
[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"

[project]
name = "millrace-send-panel"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["millrace-shared"]

[tool.uv.build-backend]
module-name = "send_panel"
"""
MAIN = """\
from send_panel.app import SERVICE
from shared.process import run

if __name__ == "__main__":
    run(SERVICE)
"""
APP = """\
from msgspec import Struct

from send_panel.config import SendPanelSettings
from shared.config.registry import Kind
from shared.contracts import streams
from shared.http.resources import resource_routes
from shared.service import Mesh, Service


class Panel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    title: str


PANELS = Kind(prefix="send_panels", type=Panel)


async def build(mesh: Mesh) -> None:
    mesh.registry.view(PANELS)
    mesh.announce("title", mesh.settings_as(SendPanelSettings).panel_title)


SERVICE = Service(
    name="send-panel",
    build=build,
    settings=SendPanelSettings,
    routes=resource_routes(PANELS, "/v1/apps/{app_key}/send-panels", "a panel"),
    streams=(streams.ALERTS,),
    buckets=(streams.CONFIG,),
    kinds=(PANELS,),
)
"""
CONFIG = """\
from shared.runtime.settings import Settings


class SendPanelSettings(Settings, frozen=True, kw_only=True):
    panel_title: str = "Panel"
"""
ROW = """\
    ServiceEntry(
        name="send-panel", http_port=8085, settings="panel_", kinds=("send_panels.*.*",), own_grant=Grant()
    ),
"""
COMPOSE = """\
  send-panel:
    <<: *service
    image: millrace/send-panel
    build:
      context: .
      args: { SERVICE: send-panel }
    environment: *settings
    secrets:
      - secret_keys
      - source: send-panel_seed
        target: nats_seed
    ports: ["127.0.0.1:8085:8080"]

  moto:
"""
COMPOSE_SECRET = """\
  send-panel_seed:
    file: .millrace/compose/keys/send-panel.nk

volumes:
"""
CONTRACT = """\
[[tool.importlinter.contracts]]
name = "inside send_panel"
type = "layers"
containers = ["send_panel"]
exhaustive = true
layers = ["__main__", "app", "config"]

[[tool.importlinter.contracts]]
name = "inside shared"
"""
CONFIGURATION = """\
[apps.shop.send_panels.main]
title = "Pushes"
"""


def add_service(copy: CheckoutCopy) -> None:
    """The recipe."""
    folder = copy.root / "services" / "send-panel"
    package = folder / "src" / "send_panel"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text('"""A panel."""\n')
    (package / "__main__.py").write_text(MAIN)
    (package / "app.py").write_text(APP)
    (package / "config.py").write_text(CONFIG)

    end = ')\n"""In the order of their ports'
    copy.replace("shared/src/shared/contracts/services.py", end, ROW + end)

    copy.replace("compose.yaml", "  moto:\n", COMPOSE)
    copy.replace("compose.yaml", "exporter.nk\n\nvolumes:\n", "exporter.nk\n" + COMPOSE_SECRET)

    exporter = '  "$MYPY_CONFIG_FILE_DIR/services/exporter/src",\n'
    copy.replace("pyproject.toml", exporter, exporter + exporter.replace("exporter", "send-panel"))
    copy.replace("pyproject.toml", '"exporter", "millrace"]\ninclude', '"exporter", "send_panel", "millrace"]\ninclude')
    copy.replace("pyproject.toml", "| exporter | millrace", "| exporter | send_panel | millrace")
    copy.replace("pyproject.toml", 'ancestors = ["hooks", ', 'ancestors = ["send_panel", "hooks", ')
    copy.replace("pyproject.toml", '[[tool.importlinter.contracts]]\nname = "inside shared"\n', CONTRACT)


async def start(copy: CheckoutCopy, *command: str) -> Process:
    """Start a Python module on the copy."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", *command), cwd=copy.root, env=copy.environment(), stdout=PIPE, stderr=STDOUT
    )


async def output(copy: CheckoutCopy, *command: str) -> str:
    """Run a Python module, require exit code 0, and return its output."""
    process = await start(copy, *command)
    out, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert 0 == process.returncode, out.decode()
    return out.decode()


async def test_fifth_service_by_the_recipe_is_checked_started_and_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = CheckoutCopy(tmp_path / "checkout")
    add_service(copy)
    for file in ("Dockerfile", "tests/unit/house/test_services.py", "tests/unit/house/test_compose.py"):
        (copy.root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, copy.root / file)

    passed = await output(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert "passed" in passed
    code, report = copy.lint_imports()
    assert 0 == code, report
    granted = await output(copy, "millrace", "nats-config", "--keys", str(tmp_path / "keys"))
    assert "# send-panel\n" in granted
    assert (tmp_path / "keys" / "send-panel.nk").exists()

    data = tmp_path / "mesh"
    names = (*USUAL_PORTS, "send-panel")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    data.mkdir()
    (data / "ports.json").write_text(json.dumps(ports))
    monkeypatch.setenv("MILLRACE_PANEL_TITLE", "Pushes")
    up = await start(copy, "millrace", "up", "--data", str(data))
    try:
        assert up.stdout is not None
        async with asyncio.timeout(WAIT_S):
            said = b""
            while b"Ctrl-C stops the mesh" not in said:
                line = await up.stdout.readline()
                assert line, said.decode()
                said += line
        shown = json.loads(await output(copy, "millrace", "status", "--data", str(data), "--json"))
        panel = next(one for one in shown["services"] if one["name"] == "send-panel")
        assert (f"http://127.0.0.1:{ports['send-panel']}", True) == (panel["url"], panel["ready"])
        announced = json.loads(MeshFolder(data).announcement("send-panel").read_bytes())
        assert "Pushes" == announced["title"]

        configuration = tmp_path / "shop.toml"
        configuration.write_text(CONFIGURATION)
        applied = await output(copy, "millrace", "apply", "--data", str(data), str(configuration))
        assert "apps.shop.send_panels.main" in applied
    finally:
        if up.returncode is None:
            up.send_signal(signal.SIGINT)
        await asyncio.wait_for(up.communicate(), WAIT_S)
    assert 0 == up.returncode
