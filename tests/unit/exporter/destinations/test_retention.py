"""The removal of old files from the store of reports."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.destinations.retention import remove_old
from shared.objects.app_reports import open_reports
from shared.runtime.settings import Settings
from support.clock import NOON
from support.outgoing import open_outgoing

DAY = timedelta(days=1)


def leave(folder: Path, name: str, age: timedelta) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    at = (NOON - age).timestamp()
    os.utime(path, (at, at))


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_the_old_reports_of_every_app_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.destinations.retention.AT_ONCE", 2)
    for number in range(5):
        leave(tmp_path, f"shop/{number}.csv.gz", 31 * DAY)
    leave(tmp_path, "bank/old.csv.gz", 31 * DAY)
    leave(tmp_path, "bank/new.csv.gz", 29 * DAY)

    async with open_reports(Settings(reports_dir=str(tmp_path)), open_outgoing()) as store:
        assert 6 == await remove_old(store, NOON - 30 * DAY)
        assert 0 == await remove_old(store, NOON - 30 * DAY)

    assert {"bank/new.csv.gz"} == names(tmp_path)


async def test_other_files_than_reports_are_not_removed(tmp_path: Path) -> None:
    others = {"read.me", "backup of shop/x.csv", "shop/deeper/x.csv"}
    for name in others:
        leave(tmp_path, name, 365 * DAY)

    async with open_reports(Settings(reports_dir=str(tmp_path)), open_outgoing()) as store:
        assert 0 == await remove_old(store, NOON)

    assert others == names(tmp_path)
