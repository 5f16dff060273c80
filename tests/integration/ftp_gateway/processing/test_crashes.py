"""A process that dies between any two steps of a file: the next one goes on, and nothing is repeated."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.parsing.file_reader import ValidationResult
from ftp_gateway.parsing.worker_pool import ParserPool
from ftp_gateway.processing import publisher, scheduler
from ftp_gateway.processing.pipeline import FilePipeline
from ftp_gateway.processing.publisher import ResumePoint, find_resume_point
from ftp_gateway.processing.scheduler import FileScheduler
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload_info import UploadInfo
from shared.contracts import streams, subjects
from shared.contracts.messages import FileChanged, PushBatch, decode
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.message import OutgoingMessage
from shared.messaging.provisioning.making import ensure
from shared.profiles.store import Profiles
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.stored_messages import messages

P = ParamSpec("P")
T = TypeVar("T")

ROWS = 1200
DATA = b"".join(b"%d;Hello;https://x.example\n" % n for n in range(ROWS)) + b"no row\n"


class KilledError(BaseException):
    """The process ends here."""


class Bomb:
    """Goes off at the n-th moment; a moment lies before and after each step that has an effect."""

    def __init__(self, at: int) -> None:
        self.left = at

    def around(self, step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def stepped(*args: P.args, **kwargs: P.kwargs) -> T:
            self.tick()
            result = await step(*args, **kwargs)
            self.tick()
            return result

        return stepped

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def made_streams(bus: Bus, settings: Settings) -> None:
    for spec in (streams.PUSH, streams.PROFILE_UPDATES, streams.FILES, streams.PROFILES):
        await ensure(bus, spec, settings)


@pytest.fixture
async def parsers(bus: Bus) -> AsyncIterator[ParserPool]:
    async with ParserPool(Profiles(bus).unknown) as work:
        yield work


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packs for the three chunks of `DATA`."""
    monkeypatch.setattr(publisher, "PACK_CHUNKS", 2)


async def upload(spool: Spool, app_key: str, name: str = "push.csv", data: bytes = DATA) -> None:
    writer = spool.create(Place(app_key, "", name), "nightly")
    writer.write(0, data)
    await writer.commit()


def intake_of(spool: Spool, bus: Bus, parsers: ParserPool) -> FileScheduler:
    return FileScheduler(
        spool=spool,
        bus=bus,
        rules_of=lambda _: FileRules(settle_s=0),
        pipeline=FilePipeline(spool=spool, bus=bus, parsers=parsers, metrics=Metrics(), clock=now),
        metrics=Metrics(),
        clock=now,
    )


async def run_until_done(spool: Spool, bus: Bus, parsers: ParserPool) -> None:
    """Run an intake until no file is left."""
    intake = intake_of(spool, bus, parsers)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(intake.run())
        while spool.uploads():
            await asyncio.sleep(0.01)
        intake.close()
        await intake.join()


async def sent_lines(bus: Bus, app_key: str) -> list[int]:
    found = await messages(bus, streams.PUSH, subjects.push_send(app_key, "*"))
    return [row.line for message in found for row in decode(message.data, PushBatch).rows]


@pytest.mark.usefixtures("made_streams")
async def test_a_crash_at_any_step_repeats_nothing_and_loses_nothing(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool
) -> None:
    for at in count(1):
        app_key, bomb = f"shop{at}", Bomb(at)
        spool = Spool(tmp_path / app_key, now)
        await upload(spool, app_key)
        with monkeypatch.context() as patch:
            patch.setattr(bus, "publish", bomb.around(bus.publish))
            patch.setattr(bus, "publish_together", bomb.around(bus.publish_together))
            patch.setattr(spool.reports, "put", bomb.around(spool.reports.put))
            for step in ("store_claim", "mark_reported", "finish"):
                patch.setattr(spool, step, bomb.around(getattr(spool, step)))
            with contextlib.suppress(BaseExceptionGroup):
                await run_until_done(spool, bus, parsers)
        await run_until_done(after := Spool(tmp_path / app_key, now), bus, parsers)

        assert list(range(1, ROWS + 1)) == await sent_lines(bus, app_key), f"moment {at}"
        told = await messages(bus, streams.FILES, subjects.ftp_file(app_key, "completed"))
        assert [(ROWS, 1)] == [
            (event.rows_ok, event.rows_bad) for event in (decode(message.data, FileChanged) for message in told)
        ], f"moment {at}"
        reports = sorted(entry.info.name for entry in after.entries(app_key, "errors"))
        assert ["push.csv.report.csv", "push.csv.result.json"] == reports, f"moment {at}"
        assert len(list((tmp_path / app_key).glob("*/*/*"))) == 4, f"moment {at}"
        if bomb.left > 0:
            break
    assert at > 18


@pytest.mark.usefixtures("made_streams")
async def test_an_answer_that_is_lost_does_not_repeat_a_chunk(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool
) -> None:
    publish_together, lost = bus.publish_together, set[bytes]()

    async def lose_each_first_answer(messages: Sequence[OutgoingMessage]) -> int:
        sequence = await publish_together(messages)
        if messages[0].data not in lost:
            lost.add(messages[0].data)
            raise UnavailableError("no answer")
        return sequence

    monkeypatch.setattr(bus, "publish_together", lose_each_first_answer)
    spool = Spool(tmp_path / "spool", now)
    await upload(spool, "shop")

    await run_until_done(spool, bus, parsers)

    assert 2 == len(lost)
    assert list(range(1, ROWS + 1)) == await sent_lines(bus, "shop")
    assert len(await messages(bus, streams.FILES, subjects.ftp_file("shop", "completed"))) == 1


@pytest.mark.usefixtures("made_streams")
async def test_the_rest_of_a_large_file_follows_once_nats_is_back(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool
) -> None:
    publish_together = bus.publish_together
    packs = 0

    async def away_for_a_while(messages: Sequence[OutgoingMessage]) -> int:
        nonlocal packs
        packs += 1
        if 3 <= packs <= 6:
            raise UnavailableError("no answer")
        return await publish_together(messages)

    monkeypatch.setattr(publisher, "RETRY_S", 0.5)
    monkeypatch.setattr(bus, "publish_together", away_for_a_while)
    spool = Spool(tmp_path / "spool", now)
    count = 60_000
    await upload(spool, "shop", data=b"".join(b"%d;Hello;https://x.example\n" % n for n in range(count)))

    await run_until_done(spool, bus, parsers)

    assert list(range(1, count + 1)) == await sent_lines(bus, "shop")


@pytest.mark.usefixtures("made_streams")
async def test_another_upload_of_a_file_that_was_half_sent_sends_the_other_half(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool
) -> None:
    lost = Spool(tmp_path / "lost", now)
    await upload(lost, "shop")
    # Moments: freeze 2, the received event 2, the first pack 2.
    bomb = Bomb(7)
    with monkeypatch.context() as patch:
        patch.setattr(bus, "publish", bomb.around(bus.publish))
        patch.setattr(bus, "publish_together", bomb.around(bus.publish_together))
        patch.setattr(lost, "store_claim", bomb.around(lost.store_claim))
        with pytest.raises(BaseExceptionGroup):
            await run_until_done(lost, bus, parsers)
    half = await sent_lines(bus, "shop")
    again = Spool(tmp_path / "again", now)
    await upload(again, "shop", "again.csv")

    await run_until_done(again, bus, parsers)

    assert 0 < len(half) < ROWS
    assert list(range(1, ROWS + 1)) == await sent_lines(bus, "shop")


@pytest.mark.usefixtures("made_streams")
@pytest.mark.parametrize(
    "garbage", [b"", b'{"type":"io.nats.jetstream.api.v1","error":{"code":400}}', b'{"last_line":9}']
)
async def test_what_any_user_put_behind_the_rows_of_a_file_is_passed_over(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool, garbage: bytes
) -> None:
    spool = Spool(tmp_path / "spool", now)
    await upload(spool, "shop")
    # Moments: freeze 2, the received event 2, the first pack 2.
    bomb = Bomb(7)
    with monkeypatch.context() as patch:
        patch.setattr(bus, "publish", bomb.around(bus.publish))
        patch.setattr(bus, "publish_together", bomb.around(bus.publish_together))
        patch.setattr(spool, "store_claim", bomb.around(spool.store_claim))
        with pytest.raises(BaseExceptionGroup):
            await run_until_done(spool, bus, parsers)
    sent = await messages(bus, streams.PUSH, subjects.push_send("shop", "*"))
    for _ in range(2):
        await bus.publish(sent[0].subject, garbage)

    await run_until_done(Spool(tmp_path / "spool", now), bus, parsers)

    found = await messages(bus, streams.PUSH, subjects.push_send("shop", "*"))
    rows = [row.line for message in found if message.headers for row in decode(message.data, PushBatch).rows]
    assert list(range(1, ROWS + 1)) == rows
    assert 'millrace_unreadable_entries_total{stream="PUSH"}' in bus.metrics.render().decode()


@pytest.mark.usefixtures("made_streams")
@pytest.mark.parametrize(("hours", "duplicate"), [(23, True), (25, False)])
async def test_content_is_a_duplicate_for_a_day(
    bus: Bus, tmp_path: Path, parsers: ParserPool, hours: int, duplicate: bool
) -> None:
    spool = Spool(tmp_path / "spool", now)
    await upload(spool, "shop")
    await run_until_done(spool, bus, parsers)
    [*_, last] = await messages(bus, streams.PUSH, subjects.push_send("shop", "*"))
    validation = ValidationResult(file_id=decode(last.data, PushBatch).file_id, last_line=ROWS)
    later = now() + timedelta(hours=hours)
    info = UploadInfo(app_key="shop", folder="", name="again.csv", opened_at=later, closed_at=later)

    point = await find_resume_point(bus, "push", "another", info, validation)

    assert ResumePoint(line=ROWS if duplicate else 0, sequence=last.sequence, duplicate=duplicate) == point


@pytest.mark.usefixtures("made_streams")
async def test_a_stop_in_the_middle_of_a_file_ends_soon_and_the_rest_follows(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool
) -> None:
    publish_together = bus.publish_together
    directory = tmp_path / "spool"
    spool = Spool(directory, now)
    many = b"".join(b"%d;Hello;https://x.example\n" % n for n in range(20_000))
    await upload(spool, "shop", data=many)
    intake = intake_of(spool, bus, parsers)
    closed = asyncio.Event()

    async def close_at_the_first_pack(messages: Sequence[OutgoingMessage]) -> int:
        intake.close()
        closed.set()
        return await publish_together(messages)

    with monkeypatch.context() as patch:
        patch.setattr(bus, "publish_together", close_at_the_first_pack)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(intake.run())
            # Starting the process that reads is not what has to be soon.
            await closed.wait()
            async with asyncio.timeout(5):
                await intake.join()
    begun = len(await sent_lines(bus, "shop"))
    await run_until_done(Spool(directory, now), bus, parsers)

    assert 0 < begun < 20_000
    assert list(range(1, 20_001)) == await sent_lines(bus, "shop")


@pytest.mark.usefixtures("made_streams")
async def test_apps_take_turns_whatever_one_of_them_has_waiting(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsers: ParserPool
) -> None:
    monkeypatch.setattr(scheduler, "FILES_AT_ONCE", 1)
    spool = Spool(tmp_path / "spool", now)
    for number in range(3):
        await upload(spool, "many", f"{number}.csv", DATA + b"%d;text;\n" % number)
    await upload(spool, "few")
    await run_until_done(spool, bus, parsers)

    completed = await messages(bus, streams.FILES, "ftp.file.*.completed")
    assert ["many", "few", "many", "many"] == [message.subject.split(".")[2] for message in completed]
