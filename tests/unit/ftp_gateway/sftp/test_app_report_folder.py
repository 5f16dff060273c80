"""Reads of reports from their store: each part once, some ahead, and never more than a bound."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ftp_gateway.sftp import app_report_folder
from ftp_gateway.sftp.app_report_folder import PART_BYTES, PARTS_AT_ONCE, PARTS_KEPT, AppReportFolder
from shared.errors import NotFoundError, UnavailableError
from shared.objects.config import LocalStoreConfig
from shared.objects.store import ObjectInfo, ObjectStore
from support.loop_watch import HELD_S, LoopWatch


class Watched(ObjectStore):
    """A store that records its requests, answers while `open` is set, and fails while `away` is."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store._store, provider="local", place="the local store", files=store._files)
        self.ranges: list[int] = []
        self.lists = 0
        self.at_once = 0
        self.most_at_once = 0
        self.away = False
        self.open = asyncio.Event()
        self.open.set()

    async def get_range(self, key: str, start: int, size: int) -> bytes:
        self.ranges.append(start // PART_BYTES)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            if self.away:
                raise UnavailableError("the store is away")
            return await super().get_range(key, start, size)
        finally:
            self.at_once -= 1

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        self.lists += 1
        async for info in super().list(prefix):
            yield info


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Watched]:
    async with LocalStoreConfig(root=str(tmp_path)).open() as store:
        yield Watched(store)


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def put(store: ObjectStore, name: str, size: int = 10) -> None:
    await store.put(f"shop/{name}", bytes(size), content_type="text/plain")


async def test_each_part_is_fetched_once_for_all_its_readers(store: Watched) -> None:
    await put(store, "a", 2 * PART_BYTES)
    reports = AppReportFolder(store, Seconds())
    report = await reports.find("shop", "a")

    store.open.clear()
    reads = [asyncio.create_task(reports.read(report, offset, 1000)) for offset in range(0, 100_000, 1000)]
    await asyncio.sleep(0)
    reads[0].cancel()
    store.open.set()
    found = await asyncio.gather(*reads[1:])

    assert {1000} == {len(block) for block in found}
    assert [0, 1] == sorted(store.ranges)


async def test_parts_that_are_held_have_a_bound(store: Watched) -> None:
    names = [f"{number}" for number in range(PARTS_KEPT + 5)]
    for name in names:
        await put(store, name)
    reports = AppReportFolder(store, Seconds())

    found = [await reports.find("shop", name) for name in names]
    # The first goes first: which of several at once has ended last is anybody's guess.
    await reports.read(found[0], 0, 10)
    await asyncio.gather(*(reports.read(report, 0, 10) for report in found[1:]))
    await reports.read(await reports.find("shop", names[-1]), 0, 10)

    assert PARTS_AT_ONCE == store.most_at_once
    assert PARTS_KEPT + 5 == len(store.ranges)
    await reports.read(await reports.find("shop", names[0]), 0, 10)
    assert PARTS_KEPT + 6 == len(store.ranges)


async def test_a_part_that_could_not_be_fetched_is_fetched_again(store: Watched) -> None:
    await put(store, "a", 3 * PART_BYTES)
    reports = AppReportFolder(store, Seconds())
    report = await reports.find("shop", "a")

    store.away = True
    with pytest.raises(UnavailableError):
        await reports.read(report, 0, 10)
    store.away = False

    assert bytes(20) == await reports.read(report, PART_BYTES - 10, 20)


async def test_a_listing_is_queried_once_and_holds_for_a_while(store: Watched) -> None:
    await put(store, "a")
    seconds = Seconds()
    reports = AppReportFolder(store, seconds)

    found = await asyncio.gather(*(reports.list("shop") for _ in range(5)))
    await put(store, "b")
    seconds.now += app_report_folder.LISTED_S - 0.1
    assert 1 == len(await reports.list("shop"))
    seconds.now += 0.2

    assert [["a"]] * 5 == [[report.name for report in listed] for listed in found]
    assert ["a", "b"] == [report.name for report in await reports.list("shop")]
    assert 2 == store.lists


async def test_only_the_newest_are_listed_and_all_can_be_read(
    store: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_report_folder, "MAX_LISTED", 3)
    ages = itertools.count(1_000_000_000)
    for name in ("d", "c", "b", "a", "0"):
        await put(store, name)
        # Files that are written within one tick of the file system's clock have one time.
        os.utime(tmp_path / "shop" / name, (age := next(ages), age))
    reports = AppReportFolder(store, Seconds())

    assert ["0", "a", "b"] == [report.name for report in await reports.list("shop")]
    assert bytes(10) == await reports.read(await reports.find("shop", "d"), 0, 10)


async def test_a_folder_of_very_many_reports_does_not_hold_the_loop(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def very_many(prefix: str) -> AsyncIterator[ObjectInfo]:
        for number in range(3 * app_report_folder.MAX_LISTED):
            yield ObjectInfo(
                key=f"{prefix}/report-{number * 7919 % 99991}.csv",
                size_bytes=number,
                etag="1",
                modified_at=datetime.fromtimestamp(number * 7907 % 99989, UTC),
            )

    monkeypatch.setattr(store, "list", very_many)
    reports = AppReportFolder(store, Seconds())

    async with LoopWatch() as watch:
        listed = await reports.list("shop")

    assert len(listed) == app_report_folder.MAX_LISTED
    assert watch.held_s < HELD_S, watch.holder


async def test_a_report_of_another_app_is_not_found(store: Watched) -> None:
    await put(store, "a")
    reports = AppReportFolder(store, Seconds())

    for app_key, name in (("rival", "a"), ("rival", "../shop/a"), ("shop", "b"), ("shop", ""), ("shop", ".a")):
        with pytest.raises(NotFoundError):
            await reports.find(app_key, name)
