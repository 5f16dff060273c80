"""Ports that `millrace up` chooses, and settings that it passes on."""

import socket
from pathlib import Path

import pytest

from millrace.machine.ports import free_ports
from millrace.mesh.folder import MeshFolder
from millrace.verbs.up import USUAL_PORTS, choose_ports, passed_on
from shared.contracts.services import SERVICE_NAMES
from shared.errors import ConflictError


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


def test_settings_of_a_service_are_passed_on_but_for_its_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SFTP_IDLE_S", "SFTP_PORT", "SFTP_PORT_FILE", "STORAGE_AVIF_FILE", "RELIST_S", "HTTP_PORT"):
        monkeypatch.setenv(f"MILLRACE_{name}", "1")

    assert {"sftp_idle_s": "1", "storage_avif_file": "1", "relist_s": "1"} == passed_on()
