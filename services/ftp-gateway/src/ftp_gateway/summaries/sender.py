"""
The daily summaries, sent: each once, whichever replica does it and however often it is started again.

One entry per app in `SUMMARIES` says which day was told last. Who is to send claims it by a write on top of the
revision that was read, sends, and writes the day. A process that dies in between leaves a claim that ends by itself,
and the summary is sent again, under the same Message-ID: twice is harmless, never is not.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from msgspec import Struct

from ftp_gateway.summaries.rendering import (
    Days,
    FileTotals,
    Summary,
    days_due,
    newest_day_due,
    render_subject,
    render_text,
)
from shared.contracts.alerts import AlertSender
from shared.contracts.messages import FileChanged, decode, encode
from shared.contracts.streams import FILES, SUMMARIES
from shared.contracts.subjects import FileState, ftp_file
from shared.errors import ConflictError, MillraceError
from shared.mail import Mail, Mailer
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.kv import KeyValueStore

log = structlog.get_logger()

CHECK_S = 30.0
CLAIM_LASTS = timedelta(minutes=5)
"""Longer than reading a day and sending it takes."""
FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=1)
ALERT_AT_TRY = 3
"""The try that, failing, is an alert; one more each day after that."""
TRIES_A_DAY = 24

_TOLD: tuple[FileState, ...] = ("completed", "failed", "duplicate", "partial")


class Subscription(Struct, frozen=True, kw_only=True):
    """An app that wants summaries. `name` is for people."""

    app_key: str
    name: str
    zone: ZoneInfo
    summary: Summary


class SummaryProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in `SUMMARIES`. Nobody tries before `not_before`; `tries` are those since `day`."""

    day: date
    tries: int = 0
    not_before: datetime | None = None


class SummarySender:
    """
    Args:
        subscriptions: The apps that want summaries, as the configuration is now.
        clock: Aware UTC.
    """

    def __init__(
        self,
        bus: Bus,
        mailer: Mailer,
        subscriptions: Callable[[], Iterator[Subscription]],
        clock: Callable[[], datetime],
    ) -> None:
        self._bus = bus
        self._store = KeyValueStore(bus, SUMMARIES)
        self._mailer = mailer
        self._subscriptions = subscriptions
        self._clock = clock
        self._alerts = AlertSender("ftp-gateway", bus.alert, clock)
        self._known: dict[str, date] = {}
        self._wake = asyncio.Event()

    async def keep(self) -> None:
        """Send what is due, for ever."""
        while True:
            self._wake.clear()
            await self.send_due()
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def changed(self) -> None:
        """The configuration has changed: look at once."""
        self._wake.set()

    async def send_due(self) -> None:
        """Send what is due now. A failure is told, and tried again at a later call."""
        for wanted in list(self._subscriptions()):
            known = self._known.get(wanted.app_key)
            if known is not None and days_due(wanted.summary, wanted.zone, self._clock(), known) is None:
                continue
            try:
                await self._look(wanted)
            except ConflictError:
                # Another replica was faster.
                continue
            except MillraceError as error:
                log.warning("summary_delayed", app_key=wanted.app_key, message=error.message)

    async def _look(self, wanted: Subscription) -> None:
        now = self._clock()
        stored = await self._store.get(wanted.app_key)
        if stored is None:
            # What was before summaries were wanted is not told.
            told = SummaryProgress(day=newest_day_due(wanted.summary, wanted.zone, now))
            await self._store.put(wanted.app_key, encode(told), expect_revision=0)
        else:
            told = decode(stored.data, SummaryProgress)
        days = days_due(wanted.summary, wanted.zone, now, told.day)
        if days is None:
            self._known[wanted.app_key] = told.day
        elif stored is not None and (told.not_before is None or told.not_before <= now):
            await self._send(wanted, days, told, stored.revision)

    async def _send(self, wanted: Subscription, days: Days, told: SummaryProgress, revision: int) -> None:
        tries = told.tries + 1
        claim = SummaryProgress(day=told.day, tries=tries, not_before=self._clock() + CLAIM_LASTS)
        revision = await self._store.put(wanted.app_key, encode(claim), expect_revision=revision)
        try:
            tally = await self._tally(wanted.app_key, days)
            if tally.files or not wanted.summary.only_when_something_happened:
                await self._mail(wanted, days, tally)
        except MillraceError as error:
            wait = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(tries - 1, 10))
            later = SummaryProgress(day=told.day, tries=tries, not_before=self._clock() + wait)
            if tries % TRIES_A_DAY == ALERT_AT_TRY:
                await self._alert(wanted, f"the summary of {days} was not sent: {error.message}")
            await self._store.put(wanted.app_key, encode(later), expect_revision=revision)
            raise
        await self._store.put(wanted.app_key, encode(SummaryProgress(day=days.last)), expect_revision=revision)
        self._known[wanted.app_key] = days.last

    async def _mail(self, wanted: Subscription, days: Days, tally: FileTotals) -> None:
        refused = await self._mailer.send(
            Mail(
                id=f"summary.{wanted.app_key}.{days.last}",
                to=wanted.summary.recipients,
                subject=render_subject(wanted.name, days, tally),
                text=render_text(wanted.name, days, tally),
                at=self._clock(),
            )
        )
        log.info("summary_sent", app_key=wanted.app_key, days=str(days), files=tally.files)
        if refused:
            await self._alert(wanted, f"the mail server refused {len(refused)} recipient(s) of the summary")

    async def _tally(self, app_key: str, days: Days) -> FileTotals:
        tally = FileTotals()
        for state in _TOLD:
            last = await self._bus.last_message(FILES, ftp_file(app_key, state))
            if last is None or last.at < days.start:
                continue
            async with open_scan(self._bus, FILES, subject=ftp_file(app_key, state), start_at=days.start) as scan:
                at = 0
                while at < last.sequence:
                    for message in await scan.next(256):
                        at = message.sequence
                        event = decode(message.data, FileChanged)
                        if days.start <= event.at < days.end:
                            tally.add(event)
        return tally

    async def _alert(self, wanted: Subscription, message: str) -> None:
        await self._alerts.send(wanted.app_key, "summary-not-sent", wanted.app_key, message)
