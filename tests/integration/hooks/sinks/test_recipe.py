"""The recipe "Add a sink" is enough: one folder and one word in the union, in a copy of the service."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hooks
from hooks.sinks.port import SinkFactory
from shared.runtime.settings import Settings
from support import toy_sinks
from support.clients.hooks import HooksClient, events, open_client
from support.servers.hooks_process import hooks_process
from support.toy_sinks.toy.config import ToyConfig
from support.toy_sinks.toy_queue.config import ToyQueueConfig
from support.waiting import until

UNION = "SinkConfig = KinesisConfig | WebhookConfig\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder of a copy of the service that has no other change than the recipe's."""
    folder = tmp_path / "source"
    shutil.copytree(Path(hooks.__file__).parent, folder / "hooks", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def add_sink(source: Path, config: type[SinkFactory]) -> None:
    """Follow the recipe."""
    name = config.__module__.split(".")[-2]
    sinks = source / "hooks" / "sinks"
    shutil.copytree(Path(toy_sinks.__file__).parent / name, sinks / name)
    union = (sinks / "__init__.py").read_text()
    assert 1 == union.count(UNION)
    added = f"from hooks.sinks.{name}.config import {config.__name__}\n\n{UNION.rstrip()} | {config.__name__}\n"
    (sinks / "__init__.py").write_text(union.replace(UNION, added))


def ids(file: Path) -> set[str]:
    """The ids of the events in a file of a toy sink."""
    return {json.loads(line)["id"] for line in file.read_text().splitlines()} if file.exists() else set()


async def deliver(client: HooksClient, file: Path) -> int:
    """Post events and wait until all of them are in the file of a toy sink; returns their number."""
    await client.post(posted := events(50, users=7))
    await until(lambda: ids(file) == {event["id"] for event in posted})
    return len(posted)


def form(**changes: Any) -> dict[str, Any]:
    return {"name": "toy", "trigger_type": "EVENT", "event_code": "*"} | changes


async def test_a_sink_that_hooks_hold_needs_a_folder_and_a_word(
    settings: Settings, shop: dict[str, str], source: Path, tmp_path: Path
) -> None:
    add_sink(source, ToyConfig)
    file = tmp_path / "records"

    async with (
        hooks_process(settings, tmp_path / "replica", source=source) as (_, url),
        open_client(url, shop) as client,
    ):
        bad = await client.ask("PUT", "/hooks/toy", form(type="TOY", url="https://example.com"))
        left_out = await client.ask("PUT", "/hooks/toy", form(type="TOY"))
        with_stream = await client.ask("PUT", "/hooks/toy", form(type="TOY", url=f"toy:{file}", stream_name="orders"))
        unknown = await client.ask("PUT", "/hooks/toy", form(type="TOYS", url=f"toy:{file}"))
        await client.hook("toy", **form(type="TOY", url=f"toy:{file}", stream_name=""))
        tested = await client.ask("POST", "/hooks/toy/test", {"type": "TOY"})
        arrived = await deliver(client, file)
        status = await client.status("toy")

    assert [(400, "url"), (400, "url"), (400, "stream_name"), (400, "type")] == [
        (code, told["error"]["field"]) for code, told in (bad, left_out, with_stream, unknown)
    ]
    assert (200, "ok", ["folder"]) == (tested[0], tested[1]["status"], [step["name"] for step in tested[1]["steps"]])
    assert (arrived, True) == (status["sent"], status["connector_active"])


async def test_a_sink_with_a_connector_needs_a_folder_and_a_word(
    settings: Settings, shop: dict[str, str], source: Path, tmp_path: Path
) -> None:
    add_sink(source, ToyQueueConfig)
    path = "/connectors/toy-queue"

    async with (
        hooks_process(settings, tmp_path / "replica", source=source) as (_, url),
        open_client(url, shop) as client,
    ):
        await client.hook("toy", type="TOY_QUEUE", stream_name="orders")
        missing = await client.status("toy")
        bad = await client.ask("PUT", path, {"folder": "here"})
        saved = await client.ask("PUT", path, {"folder": str(tmp_path)})
        tested = await client.ask("POST", f"{path}/test", {"stream_name": "orders"})
        of_hook = await client.ask("POST", "/hooks/toy/test", {})
        arrived = await deliver(client, tmp_path / "orders")
        status = await client.status("toy")

    assert "nothing is sent, because there is no toy connector" == missing["advice"]
    assert (400, "folder") == (bad[0], bad[1]["error"]["field"])
    assert 200 == saved[0]
    for code, report in (tested, of_hook):
        assert (200, f"orders in {tmp_path}") == (code, report["steps"][0]["message"])
    assert (arrived, True) == (status["sent"], status["connector_active"])
