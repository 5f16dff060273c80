"""Exports into a directory of the operator's, over HTTP and a real NATS server."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from msgspec.structs import replace

from exporter.app import SERVICE
from exporter.config.settings import ExporterSettings
from shared.contracts import subjects
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import partition_of
from shared.messaging.bus import Bus
from shared.service import RunningService
from support.run_service import running

LOCAL = {"type": "local", "directory": "shop/clicks"}
FORM = {"data": "clicks", "destination": LOCAL}
GATEWAY = {"data": "clicks", "destination": {"type": "gateway", "directory": "clicks"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of local destinations."""
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
async def service(settings: ExporterSettings, folder: Path) -> AsyncIterator[RunningService]:
    async with running(SERVICE, replace(settings, exporter_local_dir=str(folder))) as service:
        yield service


async def ask(
    service: RunningService, headers: dict[str, str], method: str, path: str, body: Any = None, app_key: str = "shop"
) -> tuple[int, Any]:
    url = f"{service.url}/v1/apps/{app_key}/exports/{path}"
    async with ClientSession(headers=headers) as http, http.request(method, url, json=body) as answer:
        return answer.status, await answer.json() if answer.status != 204 else None


def files_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


async def test_files_lie_in_the_directory(
    service: RunningService, admin: dict[str, str], shop: dict[str, str], bus: Bus, folder: Path
) -> None:
    status, report = await ask(service, admin, "PUT", "clicks", FORM)
    assert 200 == status, report
    event = Event(id="a", app_key="shop", type="click", code="click", user_id="u", occurred_at=1)
    await bus.publish(subjects.events("shop", partition_of("u")), encode([event]))

    _, run = await ask(service, shop, "POST", "clicks/flush")

    [file] = run["files"]
    lines = gzip.decompress((folder / file["key"]).read_bytes()).decode().splitlines()
    assert file["key"].startswith("shop/clicks/")
    assert ["id", "a"] == [line.split(",")[0] for line in lines]
    assert [file["key"]] == files_in(folder)


async def test_an_apps_token_neither_makes_nor_changes_one(
    service: RunningService, admin: dict[str, str], shop: dict[str, str], folder: Path
) -> None:
    attempts = [
        ("PUT", "clicks", FORM),
        ("PUT", "clicks?force=true", FORM),
        ("PUT", "clicks?dry_run=true", FORM),
        ("POST", "clicks/test", FORM),
    ]
    made = [await ask(service, shop, *attempt) for attempt in attempts]
    assert 200 == (await ask(service, admin, "PUT", "clicks", FORM))[0]
    changes = [("PUT", "clicks", FORM | {"frequency": 5}), ("PUT", "clicks", GATEWAY), ("POST", "clicks/test", None)]
    changes.append(("POST", "clicks/test-events", None))
    changed = [await ask(service, shop, *change) for change in changes]

    assert {(403, "destination.type")} == {(status, body["error"]["field"]) for status, body in made + changed}
    assert LOCAL == (await ask(service, shop, "GET", "clicks"))[1]["destination"]
    assert [] == files_in(folder)


async def test_no_directory_is_in_that_of_another_app(service: RunningService, admin: dict[str, str]) -> None:
    assert 200 == (await ask(service, admin, "PUT", "clicks", FORM))[0]

    for directory in ("shop", "shop/clicks", "/shop//clicks/", "shop/clicks/raw"):
        form = FORM | {"destination": {"type": "local", "directory": directory}}
        status, problem = await ask(service, admin, "PUT", "x", form, "rival")
        assert (409, "destination.directory") == (status, problem["error"]["field"])
    beside = FORM | {"destination": {"type": "local", "directory": "shop/clicks2"}}
    assert 200 == (await ask(service, admin, "PUT", "x", beside, "rival"))[0]


async def test_it_is_refused_where_the_operator_has_set_no_directory(
    settings: ExporterSettings, admin: dict[str, str]
) -> None:
    async with running(SERVICE, settings) as service:
        status, problem = await ask(service, admin, "PUT", "clicks", FORM)

    assert 422 == status
    [failed] = [step for step in problem["error"]["report"]["steps"] if step["status"] == "failed"]
    assert "MILLRACE_EXPORTER_LOCAL_DIR" in failed["message"]
