"""The daily summary: one e-mail a day for an app, from any replica, and again when it could not be sent."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import aiohttp
import msgspec
import pytest

from ftp_gateway.app import SERVICE
from ftp_gateway.config import APPS, App
from ftp_gateway.summaries.rendering import Summary
from ftp_gateway.summaries.sender import ALERT_AT_TRY, CLAIM_LASTS, Subscription, SummaryProgress, SummarySender
from shared.config.registry import Registry
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, FileChanged, decode, encode
from shared.mail import Mail, Mailer
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import ROW, Gateway, process
from support.run_service import RunService, running
from support.servers.mail import MailServer, mail_server
from support.stored_messages import messages
from support.waiting import until

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
"""Noon of today. The stream sets the time of an event, and no test can change that."""
DAY = timedelta(days=1)
SUMMARY = Summary(recipients=("ada@shop.example",), hour=8)
BROKEN = ROW + b"2;Hel"


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, server: MailServer) -> Settings:
    return msgspec.structs.replace(settings, smtp_host="127.0.0.1", smtp_port=server.port, smtp_security="none")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def files(bus: Bus, settings: Settings) -> None:
    for made in (streams.FILES, streams.ALERTS, streams.SUMMARIES):
        await ensure(bus, made, settings)


def summaries(bus: Bus, settings: Settings, clock: Clock, *, summary: Summary = SUMMARY) -> SummarySender:
    """Create the summary sender of one replica."""
    shop = Subscription(app_key="shop", name="Shop", zone=ZoneInfo("UTC"), summary=summary)
    return SummarySender(bus, Mailer(settings, ssl.create_default_context()), lambda: iter([shop]), clock)


async def tell(bus: Bus, name: str, at: datetime, app_key: str = "shop") -> None:
    event = FileChanged(
        app_key=app_key, file_id=name, file_name=name, kind="push", state="completed", at=at, rows=3, rows_ok=3
    )
    await bus.publish(subjects.ftp_file(app_key, "completed"), encode(event))


def text_of(server: MailServer) -> str:
    return str(server.mails[-1].get_content())


async def test_files_of_a_day_are_mailed_on_the_next(
    run_service: RunService, http: aiohttp.ClientSession, registry: Registry, bus: Bus, server: MailServer
) -> None:
    await ensure(bus, streams.SUMMARIES, Settings())
    async with run_service(SERVICE) as service:
        gateway = Gateway(service, http)
        form = {"recipients": ["ada@shop.example", "can@shop.example"], "hour": 0}
        await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "display_name": "The Shop", "summary": form})
        await gateway.user()
        async with gateway.sftp() as client:
            await process(client, "/good.csv", ROW)
            await process(client, "/broken.csv", BROKEN)
        store = KeyValueStore(bus, streams.SUMMARIES)
        clock = Clock()
        app = service.mesh.registry.view(APPS).get("shop")
        assert app is not None
        assert app.value.summary is not None
        shop = Subscription(app_key="shop", name="The Shop", zone=ZoneInfo("UTC"), summary=app.value.summary)
        replica = SummarySender(
            bus, Mailer(service.mesh.settings, service.mesh.outgoing.tls), lambda: iter([shop]), clock
        )
        await until(lambda: store.get("shop"))
        clock.now = NOON + DAY
        await replica.send_due()

    [mail] = server.mails
    assert f"The Shop: 2 files on {NOON.date()}, 1 with troubles" == mail["Subject"]
    assert "ada@shop.example, can@shop.example" == mail["To"]
    assert "1 done, 1 truncated" in text_of(server)
    assert "broken.csv  truncated" in text_of(server)


async def test_service_sends_what_is_due_when_it_starts(
    run_service: RunService, admin: dict[str, str], registry: Registry, bus: Bus, server: MailServer, files: None
) -> None:
    await tell(bus, "yesterday.csv", NOON - DAY)
    today = datetime.now(UTC).date()
    await KeyValueStore(bus, streams.SUMMARIES).put("shop", encode(SummaryProgress(day=today - 2 * DAY)))
    app = App(summary=msgspec.structs.replace(SUMMARY, hour=0))
    await registry.put(APPS, "shop", "", app)

    async with run_service(SERVICE):
        await until(lambda: server.mails)
    async with run_service(SERVICE) as again:
        await until(lambda: again.state.spool)

    assert 1 == len(server.mails)


async def test_files_from_before_summaries_were_wanted_are_not_mailed(
    bus: Bus, settings: Settings, server: MailServer, clock: Clock, files: None
) -> None:
    await tell(bus, "old.csv", NOON - DAY)
    await tell(bus, "new.csv", NOON)
    replica = summaries(bus, settings, clock)

    await replica.send_due()
    assert [] == server.mails
    clock.now += DAY
    await replica.send_due()

    assert ("new.csv" in text_of(server), "old.csv" in text_of(server)) == (True, False)


async def test_summary_is_sent_once_by_replicas_that_check_at_the_same_time(
    bus: Bus, settings: Settings, server: MailServer, clock: Clock, files: None
) -> None:
    replicas = [summaries(bus, settings, clock) for _ in range(4)]
    await replicas[0].send_due()
    await tell(bus, "a.csv", NOON)
    await tell(bus, "theirs.csv", NOON, app_key="rival")

    clock.now += DAY
    for _ in range(3):
        await asyncio.gather(*(replica.send_due() for replica in replicas))
    await summaries(bus, settings, clock).send_due()

    assert 1 == len(server.mails)
    assert "theirs.csv" not in text_of(server)


async def test_summary_goes_out_after_its_sender_died(
    bus: Bus, settings: Settings, server: MailServer, clock: Clock, files: None
) -> None:
    class Dying(Mailer):
        async def send(self, mail: Mail) -> tuple[str, ...]:
            raise asyncio.CancelledError

    await summaries(bus, settings, clock).send_due()
    await tell(bus, "a.csv", NOON)
    clock.now += DAY
    shop = Subscription(app_key="shop", name="Shop", zone=ZoneInfo("UTC"), summary=SUMMARY)
    with pytest.raises(asyncio.CancelledError):
        await SummarySender(bus, Dying(settings, ssl.create_default_context()), lambda: iter([shop]), clock).send_due()

    other = summaries(bus, settings, clock)
    await other.send_due()
    assert [] == server.mails
    clock.now += CLAIM_LASTS
    await other.send_due()

    assert 1 == len(server.mails)


async def test_summary_is_tried_again_and_is_an_alert_after_some_tries(
    bus: Bus, settings: Settings, server: MailServer, clock: Clock, files: None
) -> None:
    server.answer = "451 come later"
    replica = summaries(bus, settings, clock)
    await replica.send_due()
    await tell(bus, "a.csv", NOON)
    clock.now += DAY

    for number in range(1, ALERT_AT_TRY + 3):
        await replica.send_due()
        await replica.send_due()
        assert number == server.tries
        clock.now += timedelta(hours=1)
    server.answer = "250 taken"
    await replica.send_due()

    [alert] = await messages(bus, streams.ALERTS, subjects.alert("ftp-gateway", "shop", "summary-not-sent"))
    assert "451 come later" in decode(alert.data, Alert).message
    assert 1 == len(server.mails)
    assert "a.csv" in text_of(server)


async def test_days_without_mail_are_sent_with_the_next(
    bus: Bus, settings: Settings, server: MailServer, clock: Clock, files: None
) -> None:
    replica = summaries(bus, settings, clock)
    await replica.send_due()
    await tell(bus, "monday.csv", NOON)
    await tell(bus, "tuesday.csv", NOON + DAY)

    clock.now += 2 * DAY
    await replica.send_due()

    assert f"{NOON.date()} to {(NOON + DAY).date()}" in server.mails[0]["Subject"]
    assert "2 done" in text_of(server)


@pytest.mark.parametrize(("only_when_something_happened", "mails"), [(True, 0), (False, 1)])
async def test_day_without_files_is_mailed_where_that_is_wanted(
    bus: Bus,
    settings: Settings,
    server: MailServer,
    clock: Clock,
    files: None,
    only_when_something_happened: bool,
    mails: int,
) -> None:
    quiet = msgspec.structs.replace(SUMMARY, only_when_something_happened=only_when_something_happened)
    replica = summaries(bus, settings, clock, summary=quiet)
    await replica.send_due()

    clock.now += DAY
    await replica.send_due()
    await summaries(bus, settings, clock, summary=quiet).send_due()

    assert mails == len(server.mails)


@pytest.mark.parametrize(
    "summary",
    [
        {"recipients": []},
        {"recipients": ["nobody"]},
        {"recipients": ["a@b, c@d"]},
        {"recipients": ["a@b\n"]},
        {"recipients": ["a@b"], "hour": 24},
    ],
)
async def test_summary_that_cannot_be_is_refused(
    run_service: RunService, http: aiohttp.ClientSession, summary: dict[str, object]
) -> None:
    async with (
        run_service(SERVICE) as service,
        http.put(f"{service.url}/v1/apps/shop", json={"summary": summary}) as answer,
    ):
        assert 400 == answer.status
        assert (await answer.json())["error"]["field"].startswith("summary.")


async def test_summary_is_refused_where_there_is_no_mail_server(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    closed = msgspec.structs.replace(settings, smtp_host="")

    async with (
        running(SERVICE, closed) as gateway,
        http.put(f"{gateway.url}/v1/apps/shop", json={"summary": {"recipients": ["a@b"]}}) as answer,
    ):
        assert (400, "summary") == (answer.status, (await answer.json())["error"]["field"])


@pytest.mark.usefixtures("files")
async def test_entries_that_cannot_be_read_stop_no_summary(
    bus: Bus, settings: Settings, clock: Clock, server: MailServer
) -> None:
    sender, store = summaries(bus, settings, clock), KeyValueStore(bus, streams.SUMMARIES)
    await store.put("shop", b"garbage")
    await sender.send_due()
    await tell(bus, "a.csv", NOON)
    await bus.publish(subjects.ftp_file("shop", "completed"), b"garbage")

    clock.now = NOON + DAY
    await sender.send_due()

    assert "1 done" in text_of(server)
