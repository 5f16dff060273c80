"""
A client that speaks SFTP badly on purpose. For any bytes it gets one answer for each request or is disconnected, others
are served, and nothing of it is left.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import asyncssh
import pytest
import pytest_asyncio
from asyncssh.packet import Byte, String, UInt32, UInt64
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from structlog.testing import capture_logs

from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.sftp.server import SftpServer
from support.clients.ftp_gateway import ROW, Gateway, open_gateway, write
from support.clients.sftp_packets import (
    ANSWER_S,
    ANSWERS,
    BY_HANDLE,
    CLOSE,
    CREATE,
    EXTENDED,
    EXTENDED_REPLY,
    HANDLE,
    INIT,
    MAX_FILE_BYTES,
    OK,
    OPEN,
    REFUSED,
    STATUS,
    UNANSWERABLE,
    VERSION,
    WRITE,
    Handle,
    PacketSession,
    Request,
    requests,
)
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
LEAVE_S = 10.0
"""Time within which the gateway cleans up after a client. Shorter than `ANSWER_S`, which bounds every step."""


class Bench:
    """The gateway, for a machine that runs in another thread."""

    def __init__(self, gateway: Gateway, key: asyncssh.SSHKey) -> None:
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        self._key = key

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the gateway's loop. Fails when it hangs."""

        async def bounded() -> T:
            async with asyncio.timeout(ANSWER_S):
                return await work

        return asyncio.run_coroutine_threadsafe(bounded(), self.loop).result()

    async def connect(self, login: str = "shop.bad") -> PacketSession:
        connection = await asyncssh.connect(
            self.gateway.host,
            self.gateway.port,
            username=login,
            client_keys=[self._key],
            known_hosts=None,
            config=None,
        )
        return PacketSession(connection)

    async def serves_others(self) -> None:
        other = await self.connect("shop.good")
        async with other.connection, other.connection.start_sftp_client() as client:
            await write(client, "/good.csv.part")
            await client.remove("/good.csv.part")

    async def leave(self, session: PacketSession) -> None:
        session.connection.abort()
        await session.connection.wait_closed()

    async def nothing_is_left(self) -> None:
        """Return when no session, handle or file without an owner is there."""
        [server] = [each for each in dict(self.gateway.running.mesh.intakes).values() if isinstance(each, SftpServer)]
        await until(
            lambda: not server._authenticators and not server._filesystems and not len(server._limits), within_s=LEAVE_S
        )
        spool = self.gateway.running.state.spool
        folder = Path(self.gateway.running.mesh.settings.data_dir) / "ftp" / "spool"

        def clean() -> bool:
            spool.scan()
            indexes = (*spool._directories._files.values(), *spool._directories._reports.values())
            known = {upload_id for index in indexes for upload_id in index.uploads}
            return (
                not _open_files(folder)
                and _stems(folder) <= known
                and not any(upload.writers for upload in spool.uploads())
            )

        # What was renamed to its final name is processed meanwhile, and has files of its own for a moment.
        await until(clean, within_s=LEAVE_S)


def _stems(folder: Path) -> set[str]:
    """Return the ids of the files there. The `turn` of a directory belongs to no file."""
    return {file.name.partition(".")[0] for file in folder.rglob("*.*") if file.is_file()}


def _open_files(folder: Path) -> list[Path]:
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(handle.readlink())
    return [path for path in found if path.is_relative_to(folder)]


class BadClient(RuleBasedStateMachine):
    """A client that sends any packets, and checks the answers."""

    bench: ClassVar[Bench]

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []
        self.open: set[bytes] = set()
        self.number = 0
        self.session: PacketSession | None = None

    @initialize(version=st.sampled_from([3, 3, 3, 3, 4, 6, (1 << 32) - 1]))
    def begin(self, version: int) -> None:
        self.given, self.open = [], set()
        self.session = self.bench.run(self.bench.connect())
        said = self.bench.run(self.session.begin(version))
        assert Byte(VERSION) + UInt32(3) == said[:5]

    @rule(asked=requests())
    def ask_one_after_the_other(self, asked: list[Request]) -> None:
        for each in asked:
            self.play([self.packet(each)])

    @rule(asked=requests())
    def ask_without_waiting_for_answers(self, asked: list[Request]) -> None:
        self.play([self.packet(each) for each in asked])

    @rule(last=UNANSWERABLE)
    def be_put_out(self, last: bytes) -> None:
        session = self.begun()

        async def exchange() -> bytes | None:
            session.writer.write(last)
            return await session.receive()

        answer = self.bench.run(exchange())
        self.leave(b"", politely=False)
        assert answer is None

    @rule(asked=requests(), cut=st.booleans(), politely=st.booleans())
    def go_without_waiting_for_answers(self, asked: list[Request], cut: bool, politely: bool) -> None:
        packets = [self.packet(each) for each in asked]
        written = b"".join(UInt32(len(packet)) + packet for packet in packets)
        self.leave(written[:-1] if cut else written, politely=politely)

    def teardown(self) -> None:
        if self.session is not None:
            self.bench.run(self.bench.leave(self.session))
        self.bench.run(self.bench.nothing_is_left())
        self.bench.run(self.bench.serves_others())

    def packet(self, asked: Request) -> bytes:
        """A request as bytes, with a number of its own."""
        self.number += 1
        fields = [String(self.handle(each)) if isinstance(each, Handle) else each for each in asked.fields]
        body = b"".join(fields)
        return Byte(asked.kind) + UInt32(self.number) + body[: round(len(body) * asked.part)] + asked.more

    def handle(self, of: Handle) -> bytes:
        return self.given[-1 - of.number] if of.number < len(self.given) else of.invented

    def play(self, packets: list[bytes]) -> None:
        """Send the packets at once, and check the answer to each."""
        session = self.begun()

        async def exchange() -> list[bytes | None]:
            for packet in packets:
                session.send(packet)
            return [await session.receive() for _ in packets]

        for packet, answer in zip(packets, self.bench.run(exchange()), strict=True):
            assert answer is not None
            assert packet[1:5] == answer[1:5]
            self.look(packet, answer)

    def look(self, packet: bytes, answer: bytes) -> None:
        """Check that the packet allows the answer."""
        kind = packet[0]
        done = UInt32(OK) == answer[5:9] if answer[0] == STATUS else True
        if kind == EXTENDED:
            assert answer[0] in (STATUS, EXTENDED_REPLY)
        else:
            assert answer[0] in (STATUS, ANSWERS.get(kind, STATUS))
        if kind in REFUSED:
            assert not done
        if answer[0] == HANDLE:
            handle = answer[9:]
            assert handle not in self.open
            self.given.append(handle)
            self.open.add(handle)
        if kind in BY_HANDLE:
            size = int.from_bytes(packet[5:9])
            handle = packet[9 : 9 + size]
            assert handle in self.open or not done
            if kind == CLOSE and done:
                self.open.discard(handle)
            if kind == WRITE and done:
                assert int.from_bytes(packet[9 + size : 17 + size]) <= MAX_FILE_BYTES

    def leave(self, last: bytes, *, politely: bool) -> None:
        """Send the last bytes, disconnect, and check that nothing is left."""
        session = self.begun()

        async def leave() -> None:
            if last:
                session.writer.write(last)
            if politely:
                session.writer.write_eof()
                await session.wait_out()
            await self.bench.leave(session)
            await self.bench.nothing_is_left()

        self.session = None
        self.bench.run(leave())

    def begun(self) -> PacketSession:
        """Return the session, or a new one after one that has ended."""
        if self.session is None:
            self.begin(3)
        assert self.session is not None
        return self.session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory, host_keys: bytes) -> AsyncIterator[Bench]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode()
    async with open_gateway(tmp_path_factory.mktemp("packets"), host_keys) as (gateway, _):
        await gateway.put("/v1/apps/shop", {"settle_s": 600})
        await gateway.user("bad", public_keys=[public], limits={"file_bytes": MAX_FILE_BYTES, "open_handles": 20})
        await gateway.user("good", public_keys=[public])
        yield Bench(gateway, key)


async def test_any_client_is_answered_or_disconnected_and_nothing_is_left(bench: Bench) -> None:
    BadClient.bench = bench
    before = len(asyncio.all_tasks())
    chosen = settings(
        max_examples=20,
        stateful_step_count=20,
        print_blob=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    with capture_logs() as logs:
        await asyncio.to_thread(run_state_machine_as_test, BadClient, settings=chosen)

    assert [] == [each for each in logs if each["event"] == "sftp_request_failed"]
    await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_client_that_disconnects_early_leaves_nothing(bench: Bench) -> None:
    for last in (b"", b"\0", UInt32(5) + Byte(INIT), UInt32(5) + Byte(OPEN) + UInt32(1), UInt32(0)):
        for politely in (True, False):
            session = await bench.connect()
            session.writer, session.reader, _ = await session.connection.open_session(subsystem="sftp", encoding=None)
            session.writer.write(last)
            if politely:
                session.writer.write_eof()
                await session.wait_out()
            await bench.leave(session)
            await bench.nothing_is_left()


@pytest.mark.parametrize("closed", [True, False])
async def test_a_file_is_complete_when_it_was_closed_also_where_the_end_comes_with_it(
    bench: Bench, closed: bool
) -> None:
    session = await bench.connect()
    async with asyncio.timeout(ANSWER_S):
        await session.begin(3)
        session.send(Byte(OPEN) + UInt32(1) + String(b"/end.csv.part") + UInt32(CREATE) + UInt32(0))
        answer = await session.receive()
        assert answer is not None
        handle = answer[5:]
        session.send(Byte(WRITE) + UInt32(2) + handle + UInt64(0) + String(ROW))
        if closed:
            session.send(Byte(CLOSE) + UInt32(3) + handle)
        session.writer.write_eof()
        await session.wait_out()
    await bench.leave(session)
    await bench.nothing_is_left()

    upload = bench.gateway.running.state.spool.find(Place("shop", "", "end.csv.part"))
    assert ("closed" if closed else "open", len(ROW)) == (upload.state, upload.size_bytes)


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_a_client_of_an_older_version_is_disconnected(bench: Bench, version: int) -> None:
    session = await bench.connect()
    async with asyncio.timeout(ANSWER_S):
        await session.begin(version)
        assert await session.receive() is None
    await bench.leave(session)
