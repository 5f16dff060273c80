"""A local file is whole or absent, on the disk before it is reported, and inside its directory."""

import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.errors import DeniedError, InvalidError, UnavailableError
from shared.objects.local_files import ABANDONED_S, LocalFiles


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "new" / "root")


def names(files: LocalFiles) -> list[str]:
    return sorted(str(path.relative_to(files.root)) for path in files.root.rglob("*") if path.is_file())


def test_a_file_is_written_and_replaced(files: LocalFiles) -> None:
    assert files.write("a/b/c", b"one", replace=True)
    assert files.write("a/b/c", b"two", replace=True)

    assert b"two" == (files.root / "a/b/c").read_bytes()
    assert ["a/b/c"] == names(files)


def test_a_file_that_is_there_stays_when_it_is_not_to_be_replaced(files: LocalFiles) -> None:
    assert files.write("a", b"one", replace=False)
    assert not files.write("a", b"two", replace=False)

    assert b"one" == (files.root / "a").read_bytes()
    assert ["a"] == names(files)


def test_of_many_writers_at_once_one_is_the_first(files: LocalFiles) -> None:
    def write(number: int) -> bool:
        return files.write("a/b", str(number).encode() * 1000, replace=False)

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(write, range(8)))

    assert 1 == first.count(True)
    assert str(first.index(True)).encode() * 1000 == (files.root / "a/b").read_bytes()
    assert ["a/b"] == names(files)


def test_the_content_is_synced_before_the_name_and_the_name_before_the_report(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(number: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(number).st_mode) else "file"
        steps.append(f"sync {kind}")
        fsync(number)

    def record_rename(source: str, target: str, **directories: int) -> None:
        steps.append("place")
        rename(source, target, **directories)

    (files.root / "a").mkdir()
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)

    files.write("a/b", b"content", replace=True)

    assert ["sync file", "place", "sync directory"] == steps


def test_new_directories_are_synced_into_theirs(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def record_fsync(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            synced.append(str(Path(f"/proc/self/fd/{number}").readlink().relative_to(files.root)))
        fsync(number)

    monkeypatch.setattr(os, "fsync", record_fsync)

    files.write("a/b/c", b"", replace=False)

    assert [".", "a", "a/b"] == synced


def test_a_write_that_fails_leaves_nothing(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("a/kept", b"", replace=True)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match="No space left"):
        files.write("a/b", b"content", replace=False)

    assert ["a/kept"] == names(files)


def test_a_link_is_not_followed_wherever_it_leads(files: LocalFiles, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (files.root / "inside").mkdir()
    (files.root / "out").symlink_to(outside)
    (files.root / "in").symlink_to(files.root / "inside")
    (files.root / "file").symlink_to(outside / "file")

    for key in ("out/a", "out/a/b", "in/a", "file"):
        with pytest.raises(DeniedError, match="symbolic link"):
            files.path(key)
        for replace in (True, False):
            with pytest.raises(DeniedError, match="symbolic link"):
                files.write(key, b"", replace=replace)

    assert [] == [*outside.iterdir(), *(files.root / "inside").iterdir()]


@pytest.mark.parametrize("place", ["a", "a/b", ".parts"])
def test_a_link_that_is_made_after_the_check_is_not_followed(
    files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (files.root / "a").mkdir()

    def check_then_swap(key: str) -> Path:
        swapped = files.root / place
        if swapped.is_dir():
            swapped.rmdir()
        swapped.symlink_to(outside)
        return files.root / key

    monkeypatch.setattr(files, "path", check_then_swap)
    with pytest.raises(DeniedError, match="symbolic link"):
        files.write("a/b/c", b"", replace=False)

    assert [] == list(outside.iterdir())


def test_a_name_that_is_a_dangling_link_is_taken(
    files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files.root / "a").symlink_to(tmp_path / "outside")
    monkeypatch.setattr(files, "path", lambda key: files.root / key)

    assert not files.write("a", b"content", replace=False)

    assert not (tmp_path / "outside").exists()


def test_a_key_that_is_the_folder_of_another_is_refused(files: LocalFiles) -> None:
    files.write("a/b", b"", replace=True)

    with pytest.raises(InvalidError):
        files.write("a", b"", replace=True)
    with pytest.raises(InvalidError):
        files.write("a/b/c", b"", replace=True)


def test_a_part_longer_than_a_file_name_is_refused(files: LocalFiles) -> None:
    files.write("ş" * 127, b"", replace=True)

    with pytest.raises(InvalidError):
        files.write("x" * 256, b"", replace=True)


def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(DeniedError) as caught:
        LocalFiles(tmp_path / "file" / "root")

    assert "root" == caught.value.field


def test_ping_fails_when_the_directory_is_deleted(files: LocalFiles) -> None:
    files.ping()
    shutil.rmtree(files.root)

    with pytest.raises(UnavailableError):
        files.ping()


def test_old_partial_files_of_a_crash_are_deleted(tmp_path: Path) -> None:
    parts = tmp_path / ".parts"
    parts.mkdir()
    old, fresh = parts / "part#1", parts / "part#2"
    for part in (old, fresh):
        part.write_bytes(b"half")
    long_ago = time.time() - 2 * ABANDONED_S
    os.utime(old, (long_ago, long_ago))

    LocalFiles(tmp_path)

    assert [fresh] == list(parts.iterdir())
