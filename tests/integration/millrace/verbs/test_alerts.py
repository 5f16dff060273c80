"""Alerts on a real server, read by the operator as `millrace alerts` does."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from millrace.nats_servers.config import ensure_seeds, seed_file
from millrace.nats_servers.server import NatsServer
from millrace.verbs.alerts import follow, line_of, read_last
from shared.contracts.grants import PROVISION
from shared.contracts.messages import Alert
from shared.contracts.streams import ALERTS
from shared.contracts.subjects import alert as alert_subject
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import provision
from shared.runtime.settings import Settings, child_environment
from shared.runtime.telemetry import Metrics

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVERY = alert_subject("*", "*", "*")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
async def server(tmp_path: Path, keys: Path) -> AsyncIterator[NatsServer]:
    """A server with users, streams, and alerts of two services about two apps and about none."""
    seeds = ensure_seeds(keys)
    async with NatsServer(tmp_path / "nats", users=seeds) as server:
        async with connect(PROVISION, server.url, seed=seeds[PROVISION], metrics=Metrics(), wait_s=5) as bus:
            await provision(bus, Settings())
        for service in ("hooks", "storage"):
            async with connect(service, server.url, seed=seeds[service], metrics=Metrics(), wait_s=5) as bus:
                for number, app in enumerate(("shop", "rival", "")):
                    await bus.alert(make(service, app, number))
        yield server


def make(service: str, app_key: str, number: int) -> Alert:
    at = AT + timedelta(minutes=number)
    return Alert(service=service, app_key=app_key, kind="target-paused", subject="stream", message="no", at=at)


@pytest.fixture
async def operator(server: NatsServer, keys: Path) -> AsyncIterator[Bus]:
    seed = seed_file(keys, "operator").read_text()
    async with connect("operator", server.url, seed=seed, metrics=Metrics(), wait_s=5) as bus:
        yield bus


async def test_operator_reads_the_last_ones_in_their_order(operator: Bus) -> None:
    end = (await operator.stream_state(ALERTS)).last_sequence + 1

    def shown(found: list[Alert]) -> list[tuple[str, str]]:
        return [(alert.service, alert.app_key) for alert in found]

    every = [(service, app) for service in ("hooks", "storage") for app in ("shop", "rival", "")]
    assert every == shown(await read_last(operator, EVERY, end=end, most=100))
    assert every[-2:] == shown(await read_last(operator, EVERY, end=end, most=2))
    assert [] == await read_last(operator, EVERY, end=end, most=0)
    of_shop = await read_last(operator, alert_subject("*", "shop", "*"), end=end, most=100)
    assert [("hooks", "shop"), ("storage", "shop")] == shown(of_shop)


async def test_operator_follows_those_that_come(server: NatsServer, keys: Path, operator: Bus) -> None:
    seed = seed_file(keys, "exporter").read_text()
    start = (await operator.stream_state(ALERTS)).last_sequence + 1
    coming = follow(operator, EVERY, start=start)

    async with connect("exporter", server.url, seed=seed, metrics=Metrics(), wait_s=5) as exporter:
        await exporter.publish(alert_subject("exporter", "shop", "odd"), b"no JSON")
        await exporter.alert(make("exporter", "shop", 0))

    async with asyncio.timeout(20):
        unreadable, good = [await anext(coming) for _ in range(2)]
    assert ("exporter", "odd") == (unreadable.service, unreadable.kind)
    assert "cannot be read" in unreadable.message
    assert make("exporter", "shop", 0) == good


async def test_verb_prints_a_line_each(server: NatsServer, keys: Path) -> None:
    environment = child_environment(nats_url=server.url, nats_seed_file=seed_file(keys, "operator"))

    async def alerts(*arguments: str) -> tuple[int | None, list[str], str]:
        command = (sys.executable, "-m", "millrace", "alerts", *arguments)
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)
        out, error = await process.communicate()
        return process.returncode, out.decode().splitlines(), error.decode()

    code, lines, said = await alerts("--service", "hooks", "--last", "2")
    assert (0, "") == (code, said)
    assert [line_of(make("hooks", "rival", 1)), line_of(make("hooks", "", 2))] == lines
    code, lines, _ = await alerts("--app", "shop", "--json")
    assert ["hooks", "storage"] == [json.loads(line)["service"] for line in lines]
    code, lines, said = await alerts("--app", "a.b")
    assert (1, [], True) == (code, lines, said.startswith("millrace: app_key: expected 1 to 64 letters"))


def test_line_holds_no_control_character() -> None:
    evil = Alert(service="hooks", app_key="shop", kind="k", subject="a\x1b[2Jb", message="c\r\nd", at=AT)

    assert "2026-01-02 03:04:05  hooks shop k  a [2Jb: c  d" == line_of(evil)
