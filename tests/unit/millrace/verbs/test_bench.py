"""Rows made of figures; the measuring itself is in bench/."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from millrace.machine.checkout import repository
from millrace.verbs.bench import Row, bench_files, compare, load, rounds
from shared.errors import NotFoundError


def test_row_has_the_medians_and_their_ratio() -> None:
    row = compare("start", [3.0, 1.0, 2.0], [1.0, 9.0, 1.0], "s", at_most=3)

    assert Row(name="start", ours=2.0, other=1.0, unit="s", ratio=2.0, goal="<= 3", ok=True) == row
    assert ["name", "ours", "other", "unit", "ratio", "goal", "ok", "beside"] == list(msgspec.to_builtins(row))


@pytest.mark.parametrize(("bounds", "ok"), [({"at_most": 1.9}, False), ({"at_least": 2.0}, True), ({}, True)])
def test_goal_bounds_the_ratio(bounds: dict[str, Any], ok: bool) -> None:
    assert ok == compare("x", [2.0], [1.0], "s", **bounds).ok


@pytest.mark.parametrize(("most", "ok"), [(2.0, True), (1.9, False)])
def test_goal_may_bound_ours_alone(most: float, ok: bool) -> None:
    row = compare("x", [2.0], [0.1], "ms", ours_at_most=most)

    assert (f"ours <= {most:g}", ok) == (row.goal, row.ok)


@pytest.mark.parametrize(("ratio", "least", "ok"), [(4, 100, True), (5, 100, False), (4, 101, False)])
def test_row_is_only_well_when_each_of_its_goals_is_kept(ratio: float, least: float, ok: bool) -> None:
    row = compare("x", [100.0], [25.0], "events/s", at_least=ratio, ours_at_least=least)

    assert (f">= {ratio} and ours >= {least}", ok) == (row.goal, row.ok)


async def test_rounds_are_measured_in_turn() -> None:
    order: list[str] = []

    async def ours() -> float:
        order.append("ours")
        return 1.0

    async def other() -> float:
        order.append("other")
        return 2.0

    assert ([1.0, 1.0], [2.0, 2.0]) == await rounds(2, ours, other)
    assert ["ours", "other"] * 2 == order


def test_error_for_an_unknown_bench_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "bus.py").touch()

    with pytest.raises(NotFoundError, match="there are bus"):
        bench_files(tmp_path, "bux")


def test_folder_with_a_package_is_a_bench_and_may_import_its_own_files(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .name import NAME\n")
    (folder / "name.py").write_text('NAME = "wide"\n')

    (file,) = bench_files(tmp_path, None)

    assert "wide" == load(file).NAME


def test_every_bench_of_the_repository_has_a_name_and_rows() -> None:
    files = bench_files(repository() / "bench", None)

    assert {"bus", "hooks", "mesh", "storage"} <= {load(file).NAME for file in files}
    assert all(callable(load(file).rows) for file in files)
