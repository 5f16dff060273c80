"""The folder of a local mesh: its lock, its secrets, its addresses."""

import os
import stat
from pathlib import Path

import pytest

from millrace.machine.secret_files import make_private
from millrace.mesh.folder import Addresses, MeshFolder
from millrace.mesh.service_api import read_token
from shared.errors import ConflictError, InvalidError, NotFoundError

ADDRESSES = Addresses(
    nats="nats://127.0.0.1:4222", services={"storage": "http://127.0.0.1:8081"}, sftp="127.0.0.1:2022"
)


@pytest.fixture
def folder(tmp_path: Path) -> MeshFolder:
    return MeshFolder(tmp_path / "mesh")


def test_second_user_of_a_folder_gets_an_error_that_names_the_first(folder: MeshFolder) -> None:
    with folder.lock(), folder.announced(ADDRESSES), pytest.raises(ConflictError) as caught, folder.lock():
        pass

    assert f"(process {os.getpid()}; storage is at http://127.0.0.1:8081)" in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())


def test_second_user_gets_an_error_when_the_first_is_still_starting(folder: MeshFolder) -> None:
    with folder.lock(), pytest.raises(ConflictError, match="which is starting"), folder.lock():
        pass


def test_folder_is_free_again_after_its_user(folder: MeshFolder) -> None:
    with folder.lock():
        pass
    with folder.lock():
        assert (folder.root / "lock").exists()


def test_addresses_are_there_while_the_mesh_runs(folder: MeshFolder) -> None:
    with folder.lock():
        with folder.announced(ADDRESSES):
            assert ADDRESSES == folder.addresses()
        with pytest.raises(NotFoundError, match="no mesh is ready"):
            folder.addresses()


def test_addresses_of_a_killed_run_count_for_nothing(folder: MeshFolder) -> None:
    with folder.lock(), folder.announced(ADDRESSES):
        left_behind = (folder.root / "mesh.json").read_bytes()
    (folder.root / "mesh.json").write_bytes(left_behind)

    with pytest.raises(NotFoundError):
        folder.addresses()
    with folder.lock(), pytest.raises(NotFoundError):
        folder.addresses()


def test_error_for_a_folder_without_a_mesh_names_the_command_that_starts_one(folder: MeshFolder) -> None:
    with pytest.raises(NotFoundError, match="`millrace up` starts one"):
        folder.addresses()


def test_secrets_are_made_once_and_for_their_owner_alone(folder: MeshFolder) -> None:
    assert folder.admin_token() == folder.admin_token()
    assert folder.secret_keys() == folder.secret_keys()
    assert folder.seeds() == folder.seeds()

    for file in (folder.admin_token_file, folder.secret_keys_file, *folder.keys.iterdir()):
        assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert 0o700 == stat.S_IMODE(folder.root.stat().st_mode)


def test_folders_above_that_of_the_keys_are_for_their_owner_too(tmp_path: Path) -> None:
    keys = tmp_path / "mesh" / "compose" / "keys"

    make_private(keys)

    assert [0o700] * 3 == [stat.S_IMODE(folder.stat().st_mode) for folder in (keys, keys.parent, keys.parents[1])]


def test_ports_are_remembered(folder: MeshFolder) -> None:
    with folder.lock():
        assert {} == folder.ports()
        folder.remember_ports({"sftp": 2022})

        assert {"sftp": 2022} == folder.ports()


def test_file_of_addresses_that_is_damaged_is_named(folder: MeshFolder) -> None:
    with folder.lock():
        (folder.root / "mesh.json").write_text("{}")
        with pytest.raises(InvalidError) as caught:
            folder.addresses()

    assert str(folder.root / "mesh.json") == caught.value.field


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"garbage"])
def test_file_that_is_no_secret_is_named(folder: MeshFolder, content: bytes) -> None:
    with folder.lock():
        for file, read in (
            (folder.admin_token_file, folder.admin_token),
            (folder.keys / "hooks.nk", folder.seeds),
            (folder.admin_token_file, lambda: read_token(None, folder.root)),
        ):
            make_private(file.parent)
            file.write_bytes(content)
            with pytest.raises(InvalidError) as caught:
                read()
            assert str(file) == caught.value.field
            assert "garbage" not in str(caught.value)


def test_keys_that_are_lost_are_not_replaced(folder: MeshFolder) -> None:
    with folder.lock():
        keys = folder.secret_keys()
        folder.nats.mkdir()
        assert keys == folder.secret_keys()
        folder.secret_keys_file.unlink()

        with pytest.raises(InvalidError, match="it is lost, and the configuration in") as caught:
            folder.secret_keys()

    assert str(folder.secret_keys_file) == caught.value.field
    assert not folder.secret_keys_file.exists()


@pytest.mark.parametrize("ports", ['{"hooks":99999}', '{"hooks":0}', '{"hooks":"8081"}', "[]", "{"])
def test_ports_that_cannot_be_are_forgotten(folder: MeshFolder, ports: str) -> None:
    with folder.lock():
        (folder.root / "ports.json").write_text(ports)

        assert {} == folder.ports()
