"""Ports that `millrace up` chooses, and settings that it passes on."""

import socket
from pathlib import Path

import pytest

from millrace.machine.ports import free_ports
from millrace.mesh.folder import MeshFolder
from millrace.verbs.up import DECIDED, USUAL_PORTS, choose_ports, passed_on
from shared.contracts.services import SERVICE_NAMES, SERVICES
from shared.errors import ConflictError, InvalidError
from shared.runtime.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> MeshFolder:
    folder = MeshFolder(tmp_path / "mesh")
    folder.root.mkdir()
    return folder


def test_ports_of_the_last_run_are_used_again(folder: MeshFolder) -> None:
    last = dict(zip(USUAL_PORTS, free_ports(len(USUAL_PORTS)), strict=True))
    folder.remember_ports(last)
    said: list[str] = []

    assert last == choose_ports(folder, {}, said.append)
    assert [] == said


def test_port_of_the_last_run_that_is_in_use_is_reported_and_left_open(folder: MeshFolder) -> None:
    said: list[str] = []

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        folder.remember_ports({"hooks": port})
        chosen = choose_ports(folder, {}, said.append)

    assert "hooks" not in chosen
    assert f"port {port} for hooks is taken by another process; taking a free one" in said


def test_port_that_the_operator_wants_goes_before_all_others(folder: MeshFolder) -> None:
    (wanted, last) = free_ports(2)
    folder.remember_ports({"hooks": last, "exporter": wanted})

    chosen = choose_ports(folder, {"hooks": wanted}, lambda _: None)

    assert wanted == chosen["hooks"]
    assert wanted != chosen.get("exporter")


def test_port_that_the_operator_wants_has_to_be_free(folder: MeshFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConflictError) as caught:
            choose_ports(folder, {"sftp": port}, lambda _: None)

    assert f"port {port} for sftp is taken by another process" == str(caught.value)


def test_usual_ports_are_those_of_every_service() -> None:
    assert {*SERVICE_NAMES, "sftp", "nats"} == set(USUAL_PORTS)


def test_settings_of_the_environment_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"sftp_idle_s": "1", "storage_avif_file": "1", "relist_s": "1", "smtp_host": "mail.example.com"}
    given |= {"smtp_password_file": "/run/secrets/smtp", "reports_bucket": "reports", "sts_endpoint_url": "https://x"}
    for name, value in given.items():
        monkeypatch.setenv(f"MILLRACE_{name.upper()}", value)

    assert given == passed_on()


@pytest.mark.parametrize(
    "name", ["sftp_port", "sftp_port_file", "http_port", "nats_url", "nats_seed_file", "secret_keys", "data_dir"]
)
def test_setting_that_up_decides_itself_is_refused_and_not_dropped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MILLRACE_{name.upper()}", "1")

    with pytest.raises(InvalidError, match="`millrace up` does not take this setting") as caught:
        passed_on()

    assert f"MILLRACE_{name.upper()}" == caught.value.field


def test_setting_that_is_not_passed_on_exists() -> None:
    names = {*Settings.__struct_fields__, *(f"{listener}_port" for service in SERVICES for listener in service.ports)}

    assert set(DECIDED) <= names
