"""nats-server as the command line runs it: alone, restarted, killed, and as a cluster."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from millrace.nats_servers.cluster import NatsCluster
from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer, usable_bytes
from shared.contracts import streams, subjects
from shared.errors import ConflictError, UnavailableError
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import ensure, provision_mesh
from shared.runtime.retry import Backoff, retry
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics


async def publish(url: str, data: bytes, *, replicas: bool = False, seed: str = "") -> int:
    settings = Settings(events_max_bytes=64 << 20, nats_replicas=3 if replicas else 1)
    async with connect("publisher", url, seed=seed, metrics=Metrics(), wait_s=5) as bus:
        if not seed:
            await ensure(bus, streams.EVENTS, settings)
        sent = await retry(lambda: bus.publish(subjects.events("a", 0), data), backoff=Backoff(), deadline_s=20)
        return sent.sequence


async def test_server_keeps_port_and_data_over_kill_and_restart(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        url = server.url
        assert 1 == await publish(url, b"[]")

        await server.kill()
        await server.restart()

        assert url == server.url
        assert 2 == await publish(url, b"[]")


async def test_data_is_there_for_a_later_server_on_the_folder(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await publish(server.url, b"[]")
    async with NatsServer(tmp_path) as server:
        assert 2 == await publish(server.url, b"[]")


def test_what_is_stored_counts_as_usable_as_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "jetstream"
    store.mkdir()
    (store / "1.blk").write_bytes(b"x" * (3 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))

    assert (1 << 20) * 3 // 4 == usable_bytes(tmp_path / "no" / "store")
    assert 3 << 20 <= usable_bytes(store) < 4 << 20


async def test_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "a") as first:
        with pytest.raises(ConflictError) as caught:
            await NatsServer(tmp_path / "b", port=first.port).start()

    assert f"port {first.port} for nats-server is taken by another process" == str(caught.value)


async def test_error_of_a_server_that_ends_at_start_contains_its_log(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("a file where the store should be")

    with pytest.raises(
        UnavailableError, match=r"nats-server ended with exit code 1 before it was ready(?s:.*)not a dir"
    ):
        await NatsServer(tmp_path).start()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    async with NatsCluster(tmp_path / "nats", users=ensure_seeds(tmp_path / "keys")) as cluster:
        yield cluster


async def test_cluster_loses_nothing_when_a_node_is_killed(cluster: NatsCluster, tmp_path: Path) -> None:
    seeds = ensure_seeds(tmp_path / "keys")
    settings = Settings(nats_url=cluster.url, nats_seed=seeds["provision"], nats_replicas=3, events_max_bytes=64 << 20)
    await provision_mesh(settings, wait_s=5)
    seed = seeds["publisher"]
    assert 1 == await publish(cluster.url, b"[]", replicas=True, seed=seed)

    await cluster.kill(0)
    assert 2 == await publish(cluster.url, b"[]", replicas=True, seed=seed)
    await cluster.restart(0)
    await cluster.kill(1)

    assert 3 == await publish(cluster.url, b"[]", replicas=True, seed=seed)


@pytest.mark.parametrize("password", ["-p_begins_like_a_number", "1e9", "true"])
async def test_secret_of_the_cluster_may_look_like_a_number_or_a_boolean(tmp_path: Path, password: str) -> None:
    cluster = NatsCluster(tmp_path)
    cluster.password = password
    async with cluster:
        assert 1 == await publish(cluster.url, b"[]", replicas=True)


def texts(folder: Path) -> list[str]:
    """Logs and configurations."""
    return [file.read_text(errors="replace") for file in folder.rglob("*") if file.suffix in (".log", ".conf")]


async def test_secret_of_the_cluster_is_in_no_file(cluster: NatsCluster, tmp_path: Path) -> None:
    files = texts(tmp_path)

    assert 6 == len(files)
    assert not any(cluster.password in text for text in files)
