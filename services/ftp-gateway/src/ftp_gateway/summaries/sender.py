"""
Sending of the daily summaries, each once across replicas and restarts.

One entry per app in `SUMMARIES` holds the last day that was sent. A replica claims the entry by a write on top of the
revision that it read, sends, and writes the day. The claim of a process that dies in between expires. The summary is
then sent again, under the same Message-ID: a second e-mail is harmless, a missing one is not.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from msgspec import Struct

from ftp_gateway import SERVICE_NAME
from ftp_gateway.summaries.rendering import (
    FileTotals,
    Summary,
    SummaryPeriod,
    newest_day_due,
    period_due,
    render_subject,
    render_text,
)
from shared.contracts.alerts import AlertSender
from shared.contracts.messages import FileChanged, encode
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
"""Longer than the reading of a day and the sending take."""
FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=1)
ALERT_AT_TRY = 3
"""The failed try that raises an alert; one more follows each day."""
TRIES_A_DAY = 24

_COUNTED_STATES: tuple[FileState, ...] = ("completed", "failed", "duplicate", "partial")


class Subscription(Struct, frozen=True, kw_only=True):
    """An app that wants summaries. `name` is for people."""

    app_key: str
    name: str
    zone: ZoneInfo
    summary: Summary


class SummaryProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Entry of an app in `SUMMARIES`. No replica tries before `not_before`; `tries` counts those since `day`."""

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
        self._alerts = AlertSender(SERVICE_NAME, bus.alert, clock)
        self._known: dict[str, date] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Send the summaries that are due, until cancelled."""
        while True:
            self._wake.clear()
            await self.send_due()
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def changed(self) -> None:
        """Check at once, because the configuration has changed."""
        self._wake.set()

    async def send_due(self) -> None:
        """Send the summaries that are due now. A failure is logged and tried again at a later call."""
        for subscription in list(self._subscriptions()):
            known = self._known.get(subscription.app_key)
            if known is not None and period_due(subscription.summary, subscription.zone, self._clock(), known) is None:
                continue
            try:
                await self._check(subscription)
            except ConflictError:
                # Another replica was faster.
                continue
            except MillraceError as error:
                log.warning("summary_delayed", app_key=subscription.app_key, message=error.message)

    async def _check(self, subscription: Subscription) -> None:
        now = self._clock()
        stored = await self._store.get(subscription.app_key)
        progress = self._store.decoded(stored.key, stored.data, SummaryProgress) if stored else None
        if progress is None:
            # Days before the app asked for summaries are left out.
            progress = SummaryProgress(day=newest_day_due(subscription.summary, subscription.zone, now))
            revision = stored.revision if stored else 0
            await self._store.put(subscription.app_key, encode(progress), expect_revision=revision)
            stored = None
        period = period_due(subscription.summary, subscription.zone, now, progress.day)
        if period is None:
            self._known[subscription.app_key] = progress.day
        elif stored is not None and (progress.not_before is None or progress.not_before <= now):
            await self._send(subscription, period, progress, stored.revision)

    async def _send(
        self, subscription: Subscription, period: SummaryPeriod, progress: SummaryProgress, revision: int
    ) -> None:
        tries = progress.tries + 1
        claim = SummaryProgress(day=progress.day, tries=tries, not_before=self._clock() + CLAIM_LASTS)
        revision = await self._store.put(subscription.app_key, encode(claim), expect_revision=revision)
        try:
            totals = await self._count(subscription.app_key, period)
            if totals.files or not subscription.summary.only_when_something_happened:
                await self._mail(subscription, period, totals)
        except MillraceError as error:
            wait = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(tries - 1, 10))
            later = SummaryProgress(day=progress.day, tries=tries, not_before=self._clock() + wait)
            if tries % TRIES_A_DAY == ALERT_AT_TRY:
                await self._alert(subscription, f"the summary of {period} was not sent: {error.message}")
            await self._store.put(subscription.app_key, encode(later), expect_revision=revision)
            raise
        await self._store.put(subscription.app_key, encode(SummaryProgress(day=period.last)), expect_revision=revision)
        self._known[subscription.app_key] = period.last

    async def _mail(self, subscription: Subscription, period: SummaryPeriod, totals: FileTotals) -> None:
        refused = await self._mailer.send(
            Mail(
                id=f"summary.{subscription.app_key}.{period.last}",
                to=subscription.summary.recipients,
                subject=render_subject(subscription.name, period, totals),
                text=render_text(subscription.name, period, totals),
                at=self._clock(),
            )
        )
        log.info("summary_sent", app_key=subscription.app_key, days=str(period), files=totals.files)
        if refused:
            await self._alert(subscription, f"the mail server refused {len(refused)} recipient(s) of the summary")

    async def _count(self, app_key: str, period: SummaryPeriod) -> FileTotals:
        totals = FileTotals()
        for state in _COUNTED_STATES:
            last = await self._bus.last_message(FILES, ftp_file(app_key, state))
            if last is None or last.at < period.start:
                continue
            async with open_scan(self._bus, FILES, subject=ftp_file(app_key, state), start_at=period.start) as scan:
                at = 0
                while at < last.sequence:
                    for message in await scan.next(256):
                        at = message.sequence
                        event = self._bus.decoded(FILES, message.sequence, message.data, FileChanged)
                        if event is not None and period.start <= event.at < period.end:
                            totals.add(event)
        return totals

    async def _alert(self, subscription: Subscription, message: str) -> None:
        await self._alerts.send(subscription.app_key, "summary-not-sent", subscription.app_key, message)
