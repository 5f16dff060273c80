"""A process that dies between any two steps of a pull: the next one goes on, nothing is lost and nothing is twice."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from inspect import iscoroutinefunction
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.parsing.worker_pool import ParserPool
from ftp_gateway.processing.pipeline import FilePipeline
from ftp_gateway.processing.scheduler import FileScheduler
from ftp_gateway.remotes.clients.ftps import _Thread, open_ftps_remote
from ftp_gateway.remotes.clients.sftp import open_sftp_remote
from ftp_gateway.remotes.error_report_delivery import ErrorReportDelivery
from ftp_gateway.remotes.pull import Puller, RemoteJob, RemoteServer
from ftp_gateway.remotes.remote import Remote
from ftp_gateway.remotes.state import FORGET_AFTER
from ftp_gateway.remotes.state_store import RemoteStateStore
from ftp_gateway.spool.store import Spool
from shared.config.secret import dec_hook
from shared.contracts import streams
from shared.errors import ConflictError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.profiles.store import Profiles
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.clients.ftp_gateway import events, rows
from support.outgoing import open_outgoing
from support.servers.remotes import SftpPeer, ftps_peer, sftp_peer
from support.waiting import until

DATA = b"".join(b"%d;Hello;https://x.example\n" % n for n in range(3))


class KilledError(BaseException):
    """The process ends here."""


class Death:
    """A crash before the n-th step of the objects that it accompanies. All later steps fail, too."""

    def __init__(self, before: int) -> None:
        self.left = before

    def accompanies(self, steps: Any) -> Any:
        """Return the object with steps that may crash."""
        return Mortal(steps, self)

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError


class Mortal:
    """An object that may crash before one of its methods runs or returns."""

    def __init__(self, steps: Any, death: Death) -> None:
        self.steps = steps
        self.death = death

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.steps, name)
        if not iscoroutinefunction(found):
            return found

        async def stepped(*given: Any, **options: Any) -> Any:
            self.death.step()
            result = await found(*given, **options)
            self.death.step()
            return result

        return stepped


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[SftpPeer]:
    async with sftp_peer(tmp_path / "peer") as peer:
        yield peer


@pytest.fixture
async def store(bus: Bus, settings: Settings) -> KeyValueStore:
    for spec in (streams.PUSH, streams.FILES, streams.PROFILES, streams.REMOTES):
        await ensure(bus, spec, settings)
    return KeyValueStore(bus, streams.REMOTES)


@pytest.fixture
async def parsers(bus: Bus) -> AsyncIterator[ParserPool]:
    async with ParserPool(Profiles(bus).unknown) as parsers:
        yield parsers


class Process:
    """One process: its spool, and the state of the remote that it knows. Its clock is `ahead` of the real time."""

    def __init__(self, folder: Path, peer: SftpPeer, store: KeyValueStore, app_key: str = "shop") -> None:
        self.ahead = timedelta()
        self.app_key = app_key
        self.spool = Spool(folder, self.clock)
        self.state = RemoteStateStore(store, app_key, "erp")
        self.peer = peer

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def poll(self, death: Death | None = None, **changed: Any) -> None:
        remote = msgspec.convert(self.peer.config(**changed), Remote, dec_hook=dec_hook)
        death = death or Death(1 << 30)

        @asynccontextmanager
        async def opened(remote: Remote) -> AsyncIterator[RemoteServer]:
            async with open_sftp_remote(remote, open_outgoing()) as server:
                yield death.accompanies(server)

        await self.state.load()
        puller = Puller(
            RemoteJob(app_key=self.app_key, id="erp", revision=1, remote=remote),
            death.accompanies(self.state),
            spool=death.accompanies(self.spool),
            open_server=opened,
            send_reports=ErrorReportDelivery(self.spool, self.clock).send,
            metrics=Metrics(),
            clock=self.clock,
        )
        await puller.poll()

    async def work_off(self, bus: Bus, parsers: ParserPool) -> None:
        """Process the complete files of the spool."""
        intake = FileScheduler(
            spool=self.spool,
            bus=bus,
            rules_of=lambda _: FileRules(settle_s=0),
            pipeline=FilePipeline(spool=self.spool, bus=bus, parsers=parsers, metrics=Metrics(), clock=self.clock),
            metrics=Metrics(),
            clock=self.clock,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(intake.run())
            await until(lambda: all(upload.idle for upload in self.spool.uploads()))
            intake.close()
            await intake.join()


@pytest.mark.parametrize("restarted_with", ["the files in hand", "the next look"])
async def test_a_crash_at_any_step_repeats_nothing_and_loses_nothing(
    bus: Bus, peer: SftpPeer, store: KeyValueStore, parsers: ParserPool, tmp_path: Path, restarted_with: str
) -> None:
    for at in count(1):
        app_key, death = f"shop{at}", Death(at)
        (peer.folder / "out" / "push.csv").write_bytes(DATA)
        before = Process(tmp_path / app_key, peer, store, app_key)
        after: dict[str, Any] = {"after": "archive", "archive_path": f"/done/{app_key}"}
        with suppress(KilledError):
            await before.poll(death, **after)
        restarted = Process(tmp_path / app_key, peer, store, app_key)
        shown = {upload.info.name for upload in restarted.spool.entries(app_key, "")}
        assert shown <= {"push.csv"}, f"moment {at}"
        if restarted_with == "the files in hand":
            await restarted.work_off(bus, parsers)
        for _ in range(2):
            await restarted.poll(**after)
            await restarted.work_off(bus, parsers)

        assert ["0", "1", "2"] == [row.ext_id for row in await rows(bus, app_key)], f"moment {at}"
        assert 1 == len(list((peer.folder / "done" / app_key).iterdir())), f"moment {at}"
        assert [] == list((peer.folder / "out").iterdir()), f"moment {at}"
        assert [] == restarted.spool.uploads(), f"moment {at}"
        assert [] == await events(bus, "partial", app_key), f"moment {at}"
        if death.left > 0:
            break
    assert at > 14


async def test_what_was_pulled_waits_for_a_file_of_its_name(
    bus: Bus, peer: SftpPeer, store: KeyValueStore, parsers: ParserPool, tmp_path: Path
) -> None:
    process = Process(tmp_path / "spool", peer, store)
    writer = process.spool.create(Place("shop", "", "push.csv"), "nightly")
    writer.write(0, b"7;Seven;https://x.example\n")
    (peer.folder / "out" / "push.csv").write_bytes(DATA)

    await process.poll()
    await writer.commit()
    await process.work_off(bus, parsers)
    await process.poll()
    await process.work_off(bus, parsers)

    assert ["7", "0", "1", "2"] == [row.ext_id for row in await rows(bus)]


async def test_a_deleted_file_is_remembered_for_a_week(
    bus: Bus, peer: SftpPeer, store: KeyValueStore, tmp_path: Path
) -> None:
    process = Process(tmp_path / "spool", peer, store)
    path = peer.folder / "out" / "push.csv"
    path.write_bytes(DATA)
    await process.poll()
    hidden = path.rename(peer.folder / "hidden")
    await process.poll()
    hidden.rename(path)
    await process.poll()
    assert 1 == len(process.spool.uploads())
    path.unlink()

    await process.poll()
    process.ahead = FORGET_AFTER - timedelta(minutes=1)
    await process.poll()
    assert ["push.csv"] == list(process.state.pulled)
    process.ahead = FORGET_AFTER + timedelta(minutes=1)
    await process.poll()

    await process.state.load()
    assert {} == process.state.pulled


async def test_a_file_that_cannot_be_remembered_is_remembered_later(
    peer: SftpPeer, store: KeyValueStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path / "spool", peer, store)
    (peer.folder / "out" / "push.csv").write_bytes(DATA)

    async def fail(*_: object, **__: object) -> int:
        raise UnavailableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", fail)
        await process.poll()
    await process.state.save()

    await process.state.load()
    assert ["push.csv"] == list(process.state.pulled)


async def test_a_server_that_fails_file_after_file_is_left_alone(
    peer: SftpPeer, store: KeyValueStore, tmp_path: Path
) -> None:
    process = Process(tmp_path / "spool", peer, store)
    for number in range(9):
        (peer.folder / "out" / f"{number}.csv").write_bytes(DATA)
        peer.cut[f"{number}.csv"] = 5

    with pytest.raises(ConflictError, match=r"0\.csv: the server gave 5 bytes"):
        await process.poll()

    assert [] == process.spool.uploads()


async def test_an_ftps_session_that_is_cut_off_at_any_step_closes_what_it_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do, steps, last = _Thread.do, 0, 0

    async def cut_off(thread: _Thread, work: Any) -> Any:
        nonlocal steps
        steps += 1
        doing = asyncio.ensure_future(do(thread, work))
        if steps == last:
            await asyncio.sleep(0)
            doing.cancel()
        return await doing

    monkeypatch.setattr(_Thread, "do", cut_off)
    async with ftps_peer(tmp_path / "ftps") as server:
        (server.folder / "out" / "push.csv").write_bytes(DATA)
        remote = msgspec.convert(server.config(), Remote, dec_hook=dec_hook)
        while steps >= last:
            steps, last = 0, last + 1
            with suppress(asyncio.CancelledError):
                async with open_ftps_remote(remote, open_outgoing()) as opened:
                    await opened.list_files("/out", 10)
                    async with aclosing(opened.read("/out/push.csv", len(DATA))) as blocks:
                        async for _ in blocks:
                            pass
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("ftps_")])
    # What nobody closed is told now, as a warning, which is an error.
    gc.collect()
    assert last > 5
