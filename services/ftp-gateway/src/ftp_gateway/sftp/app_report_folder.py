"""
Folder `/reports`: the reports that exporter made for an app, listed and read, never written.

A client reads a file in blocks of some kilobytes, many at a time, and a request to a bucket costs tens of milliseconds.
So a file is fetched in parts of `PART_BYTES`. Each part is fetched once for all sessions that want it, and the latest
are kept. The bound holds for all sessions together.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import structlog
from msgspec import Struct

from ftp_gateway.model.virtual_paths import Location, locate
from shared.errors import InvalidError, NotFoundError
from shared.objects.app_reports import folder_of_app, report_key
from shared.objects.store import ObjectInfo, ObjectStore
from shared.runtime.fair_share import FairShare
from shared.runtime.slices import Slices

log = structlog.get_logger()

LISTED_S = 5.0
"""Lifetime of a listing. A client that has listed asks for each file as well."""
MAX_LISTED = 10_000
"""Limit of one app, the newest. An older one can still be read by its name."""
MAX_LISTINGS = 100
PART_BYTES = 1 << 20
PARTS_KEPT = 24
PARTS_AT_ONCE = 8
PARTS_RESERVE = 4
"""Parts that are fetched at once, and further ones of apps that have none."""


class AppReport(Struct, frozen=True):
    """A report, as it was when it was looked up. Hashable."""

    app_key: str
    name: str
    info: ObjectInfo


class _CachedListing(Struct):
    reports: dict[str, AppReport]
    good_until: float


class AppReportFolder:
    """
    Reports of all apps, in the platform's store.

    Every method raises the store's `MillraceError` while it does not answer.

    Args:
        monotonic: Returns seconds that only grow.
    """

    def __init__(self, store: ObjectStore, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._listings: OrderedDict[str, _CachedListing] = OrderedDict()
        self._pending_listings: dict[str, asyncio.Future[_CachedListing]] = {}
        self._parts: OrderedDict[tuple[AppReport, int], bytes] = OrderedDict()
        self._fetched: dict[tuple[AppReport, int], asyncio.Future[bytes]] = {}
        self._fetching = FairShare(PARTS_AT_ONCE, name="parts", reserve=PARTS_RESERVE)

    async def list(self, app_key: str) -> list[AppReport]:
        """
        Return the newest reports of an app, by name. Names that begin with a dot or cannot be an SFTP path are left
        out.
        """
        found = self._fresh_listing(app_key)
        if found is None:
            if app_key not in self._pending_listings:
                asked = self._pending_listings[app_key] = asyncio.ensure_future(self._list(app_key))
                asked.add_done_callback(lambda _: self._listed(app_key))
            found = await asyncio.shield(self._pending_listings[app_key])
        return list(found.reports.values())

    async def find(self, app_key: str, name: str) -> AppReport:
        """Return a report by its name. Raises `NotFoundError`."""
        known = self._fresh_listing(app_key)
        if known is not None and name in known.reports:
            return known.reports[name]
        try:
            key = report_key(app_key, name)
        except InvalidError:
            raise NotFoundError("there is no such file") from None
        if not _is_shown(name):
            raise NotFoundError("there is no such file")
        return AppReport(app_key, name, await self._store.head(key))

    async def read(self, report: AppReport, offset: int, size: int) -> bytes:
        """Read up to `size` bytes at an offset; none from the end on."""
        end = min(offset + size, report.info.size_bytes)
        found = bytearray()
        while offset < end:
            part = await self._part(report, offset // PART_BYTES)
            start = offset % PART_BYTES
            block = part[start : start + end - offset]
            if not block:
                raise NotFoundError("the file has changed")
            found += block
            offset += len(block)
        return bytes(found)

    def _listed(self, app_key: str) -> None:
        _log_failure(app_key, self._pending_listings.pop(app_key))

    def _fresh_listing(self, app_key: str) -> _CachedListing | None:
        listing = self._listings.get(app_key)
        return listing if listing is not None and listing.good_until > self._monotonic() else None

    async def _list(self, app_key: str) -> _CachedListing:
        folder = folder_of_app(app_key)
        found: list[AppReport] = []
        slices = Slices()
        async for info in self._store.list(folder):
            name = info.key.removeprefix(f"{folder}/")
            if _is_shown(name):
                found.append(AppReport(app_key, name, info))
                if len(found) >= 2 * MAX_LISTED:
                    found = _newest(found)
            await slices.turn()
        named = sorted(_newest(found), key=lambda report: report.name)
        listing = _CachedListing({report.name: report for report in named}, self._monotonic() + LISTED_S)
        self._listings[app_key] = listing
        self._listings.move_to_end(app_key)
        for stale in [key for key, known in self._listings.items() if known.good_until <= self._monotonic()]:
            del self._listings[stale]
        while len(self._listings) > MAX_LISTINGS:
            self._listings.popitem(last=False)
        return listing

    async def _part(self, report: AppReport, number: int) -> bytes:
        fetched = self._start_fetch(report, number)
        if (number + 1) * PART_BYTES < report.info.size_bytes:
            # A session gets one READ answered after the other: without this it would wait for each part.
            self._start_fetch(report, number + 1)
        if fetched is None:
            self._parts.move_to_end((report, number))
            return self._parts[report, number]
        # A client that goes away must not take the part from another one.
        return await asyncio.shield(fetched)

    def _start_fetch(self, report: AppReport, number: int) -> asyncio.Future[bytes] | None:
        """Start fetching a part, unless it is kept."""
        at = report, number
        if at in self._parts:
            return None
        if at not in self._fetched:
            fetched = self._fetched[at] = asyncio.ensure_future(self._fetch(report, number))
            fetched.add_done_callback(lambda _: self._fetch_done(at))
        return self._fetched[at]

    def _fetch_done(self, at: tuple[AppReport, int]) -> None:
        _log_failure(at[0].app_key, self._fetched.pop(at))

    async def _fetch(self, report: AppReport, number: int) -> bytes:
        start = number * PART_BYTES
        size = min(PART_BYTES, report.info.size_bytes - start)
        async with self._fetching.hold(report.app_key):
            part = await self._store.get_range(report_key(report.app_key, report.name), start, size)
        self._parts[report, number] = part
        if len(self._parts) > PARTS_KEPT:
            self._parts.popitem(last=False)
        return part


def _log_failure(app_key: str, asked: asyncio.Future[Any]) -> None:
    # Callers that wait for it get the error as well.
    if not asked.cancelled() and asked.exception() is not None:
        log.warning("app_report_read_failed", app_key=app_key, message=str(asked.exception()))


def _newest(found: list[AppReport]) -> list[AppReport]:
    return sorted(found, key=lambda report: report.info.modified_at, reverse=True)[:MAX_LISTED]


def _is_shown(name: str) -> bool:
    if name.startswith("."):
        return False
    try:
        return locate(f"/reports/{name}".encode()) == Location("reports", name)
    except (InvalidError, NotFoundError, UnicodeEncodeError):
        return False
