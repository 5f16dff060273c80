"""The generated configuration of nats-server. The integration tests run a real server with it."""

import argparse
import stat
from pathlib import Path

import pytest

from millrace.nats_servers.config import (
    ServerConfig,
    ensure_seeds,
    make_seed,
    public_key,
    render,
    seed_file,
)
from millrace.verbs import nats_config
from shared.contracts.grants import GRANTS, denials, permissions
from shared.errors import InvalidError


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    parser = argparse.ArgumentParser()
    nats_config.add_arguments(parser)
    assert 0 == nats_config.run(parser.parse_args(argv))
    return capsys.readouterr().out


def test_every_user_is_there_with_its_public_key_and_no_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed(capsys, "--keys", str(tmp_path / "keys"))

    seeds = ensure_seeds(tmp_path / "keys")
    assert set(GRANTS) == set(seeds)
    assert all(public_key(seed) in config for seed in seeds.values())
    assert not any(seed in config for seed in seeds.values())


def test_every_permission_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "--keys", str(tmp_path / "keys"))

    for user in GRANTS:
        allowed = permissions(user)
        assert all(f'"{subject}"' in config for subject in (*allowed.publish, *allowed.subscribe))


def test_seeds_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"

    first, second = ensure_seeds(keys), ensure_seeds(keys)

    assert first == second
    assert 0o700 == stat.S_IMODE(keys.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()}


def test_seed_of_a_user_begins_as_one(tmp_path: Path) -> None:
    assert make_seed().startswith("SU")
    assert public_key(make_seed()).startswith("U")


def test_file_that_holds_no_seed_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        public_key("SUAnotaseed")

    assert "SUAnotaseed" not in str(caught.value)


def test_file_without_a_seed_is_named(tmp_path: Path) -> None:
    seed_file(tmp_path, "hooks").touch()

    with pytest.raises(InvalidError, match="empty file") as caught:
        ensure_seeds(tmp_path)

    assert str(seed_file(tmp_path, "hooks")) == caught.value.field


def test_only_services_may_reply_to_any_inbox() -> None:
    keys = {user: public_key(make_seed()) for user in GRANTS}

    config = render(ServerConfig(store="/data"), keys)

    assert sum(1 for grant in GRANTS.values() if grant.service) == config.count("allow_responses: { max: 1,")


def test_user_that_scans_a_stream_is_denied_durable_consumers() -> None:
    denied = denials("exporter")

    assert {"$JS.API.CONSUMER.MSG.NEXT.EVENTS.hooks-p00", "$JS.ACK.EVENTS.hooks-p00.>"} <= set(denied)
    assert {"$JS.API.CONSUMER.CREATE.EVENTS.hooks-p00.>", "$JS.API.CONSUMER.DELETE.EVENTS.hooks-p00"} <= set(denied)
    assert not {"$JS.API.CONSUMER.MSG.NEXT.EVENTS.hooks-p00", "$JS.ACK.EVENTS.hooks-p00.>"} & set(denials("hooks"))
    assert () == denials("storage")


def test_node_of_a_cluster_reads_its_secret_from_the_environment() -> None:
    config = render(ServerConfig(store="/data", server_name="nats-1", cluster_port=6222), None)

    assert "password: $NATS_CLUSTER_PASSWORD" in config
    assert "routes: $NATS_CLUSTER_ROUTES" in config


def test_node_without_a_name_is_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    nats_config.add_arguments(parser)
    args = parser.parse_args(["--keys", str(tmp_path), "--cluster-port", "6222"])

    with pytest.raises(InvalidError, match="name that lasts"):
        nats_config.run(args)


def test_monitoring_is_closed_unless_a_port_is_set() -> None:
    assert "http:" not in render(ServerConfig(store="/data"), None)
    assert 'http: "127.0.0.1:8222"' in render(ServerConfig(store="/data", monitor_port=8222), None)
