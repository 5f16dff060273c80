"""The name of a replica."""

from pathlib import Path

from hooks.assignment.replica_id import NAME, lock_name
from shared.contracts.subjects import check_name


async def test_the_name_is_kept_over_a_restart(tmp_path: Path) -> None:
    async with lock_name(tmp_path / "hooks") as first:
        pass
    async with lock_name(tmp_path / "hooks") as second:
        assert first == second
    check_name(first, "name")


async def test_two_processes_with_one_folder_have_two_names(tmp_path: Path) -> None:
    async with lock_name(tmp_path) as first, lock_name(tmp_path) as second:
        assert first != second

    async with lock_name(tmp_path) as third:
        assert first == third


async def test_a_folder_that_cannot_be_written_costs_nothing_but_the_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async with lock_name(tmp_path / "file") as first, lock_name(tmp_path / "file") as second:
        assert first != second


async def test_a_file_with_something_else_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "replica").write_text("not a name\n" * 20)
    async with lock_name(tmp_path) as first:
        assert NAME.fullmatch(first)

    assert first == (tmp_path / "replica").read_text()
