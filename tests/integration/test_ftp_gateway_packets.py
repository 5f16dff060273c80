"""
A client that speaks SFTP badly on purpose: whatever it sends, it gets one answer for each request or is put out, others
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
from asyncssh.constants import FXF_CREAT, FXF_READ, FXF_TRUNC, FXF_WRITE
from asyncssh.packet import Byte, String, UInt32, UInt64
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from msgspec import Struct, structs
from structlog.testing import capture_logs

from ftp_gateway.paths import Place
from ftp_gateway.protocols.sftp import SftpServer
from ftp_gateway.protocols.sftp_wire import MAX_PACKET_BYTES
from servers.ftp_gateway import ROW, Gateway, open_gateway, write
from servers.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
ANSWER_S = 15.0
"""How long an answer may take on a busy machine; without one the gateway hangs."""
LEAVE_S = 10.0
"""How long the gateway may take to clean up after a client. Shorter than `ANSWER_S`, which bounds every step."""
MAX_FILE_BYTES = 1 << 20

# Types of packets of version 3 (draft-ietf-secsh-filexfer-02, section 3).
INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(1, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201
LINK, BLOCK = 21, 22
OK = 0

ANSWERS = {
    OPEN: HANDLE, OPENDIR: HANDLE, READ: DATA, LSTAT: ATTRS, FSTAT: ATTRS, STAT: ATTRS, READDIR: NAME, REALPATH: NAME,
    READLINK: NAME,
}  # fmt: skip
REFUSED = (READLINK, SYMLINK, LINK, BLOCK)
BY_HANDLE = (CLOSE, READ, WRITE, FSTAT, FSETSTAT, READDIR)


class Handle(Struct, frozen=True):
    """Stands for the n-th last handle that the session was given, open or closed, or an invented one."""

    number: int
    invented: bytes


class Request(Struct, frozen=True):
    """A request: its type, and what it holds. Only a part of it is sent, or more than belongs to it."""

    kind: int
    fields: tuple[bytes | Handle, ...]
    part: float = 1.0
    more: bytes = b""


PATHS = st.one_of(
    st.sampled_from(
        [b"/", b"", b".", b"/a.csv", b"/b.csv.part", b"a.csv", b"/Profile", b"/Profile/a.txt", b"/errors", b"/errors/x"]
    ),
    st.sampled_from([b"/../../etc/passwd", b"//etc//passwd", b"/\xff\xfe", b"/a\x00b", b"..\\x"]),
    # Made when they are drawn: hypothesis writes down what a strategy holds.
    st.sampled_from([(b"x", 300), (b"/x", 3000)]).map(lambda repeated: repeated[0] * repeated[1]),
    st.binary(max_size=12),
)
HANDLES = st.builds(Handle, st.integers(0, 5), st.binary(max_size=6))
SIZES = st.sampled_from([0, 1, 4096, 256 << 10, MAX_FILE_BYTES, 1 << 31, (1 << 32) - 1])
OFFSETS = st.one_of(SIZES, st.sampled_from([1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]))
FLAGS = st.one_of(st.sampled_from([0x01, 0x02, 0x03, 0x1A, 0x0A, 0x0E, 0x2A]), st.integers(0, (1 << 32) - 1))
ATTRIBUTES = st.one_of(
    st.just(UInt32(0)),
    OFFSETS.map(lambda size: UInt32(1) + UInt64(size)),
    st.just(UInt32(0x0F) + UInt64(10) + UInt32(0) * 5),
    st.just(UInt32(0x80000000) + UInt32((1 << 32) - 1)),
    st.binary(max_size=20),
)
EXTENSIONS = st.sampled_from(
    [
        b"posix-rename@openssh.com", b"fsync@openssh.com", b"lsetstat@openssh.com", b"limits@openssh.com",
        b"statvfs@openssh.com", b"fstatvfs@openssh.com", b"hardlink@openssh.com", b"copy-data", b"ranges@asyncssh.com",
        b"expand-path@openssh.com", b"users-groups-by-id@openssh.com", b"", b"\xff",
    ]
)  # fmt: skip


def request(kind: int, *fields: st.SearchStrategy[bytes] | st.SearchStrategy[Handle]) -> st.SearchStrategy[Request]:
    """A request that is written as it should be, whatever it asks."""
    return st.tuples(*fields).map(lambda drawn: Request(kind, drawn))


PATH = PATHS.map(String)
KNOWN = st.sampled_from([b"/a.csv", b"/b.csv.part", b"/Profile/a.txt"]).map(String)
FOLDER = st.sampled_from([b"/", b"/Profile", b"/errors"]).map(String)
CREATE = FXF_WRITE | FXF_CREAT | FXF_TRUNC
USEFUL = st.one_of(
    request(OPEN, KNOWN, st.just(UInt32(CREATE)), st.just(UInt32(0))),
    request(OPEN, KNOWN, st.just(UInt32(FXF_READ)), st.just(UInt32(0))),
    request(OPENDIR, FOLDER),
    request(WRITE, HANDLES, st.just(UInt64(0)), st.just(String(ROW))),
    request(READ, HANDLES, st.just(UInt64(0)), st.just(UInt32(1000))),
    request(READDIR, HANDLES),
    request(CLOSE, HANDLES),
    request(RENAME, KNOWN, KNOWN),
    request(REMOVE, KNOWN),
)
STRANGE = st.one_of(
    request(OPEN, PATH, FLAGS.map(UInt32), ATTRIBUTES),
    request(READ, HANDLES, OFFSETS.map(UInt64), SIZES.map(UInt32)),
    request(WRITE, HANDLES, OFFSETS.map(UInt64), st.binary(max_size=2000).map(String)),
    request(FSETSTAT, HANDLES, ATTRIBUTES),
    request(FSTAT, HANDLES),
    *(request(kind, PATH, ATTRIBUTES) for kind in (SETSTAT, MKDIR)),
    *(request(kind, PATH) for kind in (OPENDIR, LSTAT, STAT, REMOVE, RMDIR, REALPATH, READLINK)),
    *(request(kind, PATH, PATH) for kind in (RENAME, SYMLINK, LINK)),
    request(BLOCK, HANDLES, OFFSETS.map(UInt64), OFFSETS.map(UInt64), FLAGS.map(UInt32)),
    request(EXTENDED, EXTENSIONS.map(String), PATH, PATH),
    request(EXTENDED, EXTENSIONS.map(String), HANDLES),
    request(EXTENDED, st.just(String(b"limits@openssh.com"))),
    request(INIT),
)
NONSENSE = st.builds(Request, st.integers(0, 255), st.tuples(st.binary(max_size=40)))
WHOLE = st.one_of(USEFUL, STRANGE)
BROKEN = st.one_of(
    st.builds(lambda asked, part: structs.replace(asked, part=part), WHOLE, st.floats(0, 1, exclude_max=True)),
    st.builds(lambda asked, more: structs.replace(asked, more=more), WHOLE, st.binary(min_size=1, max_size=40)),
)
SEVERAL = st.lists(st.one_of(USEFUL, USEFUL, STRANGE, BROKEN, NONSENSE), min_size=8, max_size=40)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """What a client asks in a row. Composite for its short name in what hypothesis writes down."""
    return draw(SEVERAL)


UNANSWERABLE = st.one_of(
    st.binary(max_size=4).map(String),
    st.tuples(st.integers(MAX_PACKET_BYTES + 1, (1 << 32) - 1).map(UInt32), st.binary(max_size=100)).map(b"".join),
)
"""Packets that are too short to be a request, or tell a length that is too long."""


class Session:
    """One SFTP session, packet by packet."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self.sent = 0

    async def begin(self, version: int) -> bytes:
        """Open the channel. What the gateway says to INIT."""
        self.writer, self.reader, _ = await self.connection.open_session(subsystem="sftp", encoding=None)
        self.send(Byte(INIT) + UInt32(version))
        answer = await self.receive()
        assert answer is not None
        return answer

    def send(self, packet: bytes) -> None:
        self.writer.write(UInt32(len(packet)) + packet)

    async def wait_out(self) -> None:
        """Return when the gateway has ended the session."""
        async with asyncio.timeout(ANSWER_S):
            while await self.reader.read(1 << 16):
                pass

    async def receive(self) -> bytes | None:
        """A packet, or None when the gateway has put us out."""
        try:
            packet: bytes = await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(4)))
            return packet
        except (asyncio.IncompleteReadError, asyncssh.Error):
            return None


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

    async def connect(self, login: str = "shop.bad") -> Session:
        connection = await asyncssh.connect(
            self.gateway.host,
            self.gateway.port,
            username=login,
            client_keys=[self._key],
            known_hosts=None,
            config=None,
        )
        return Session(connection)

    async def serves_others(self) -> None:
        other = await self.connect("shop.good")
        async with other.connection, other.connection.start_sftp_client() as client:
            await write(client, "/good.csv.part")
            await client.remove("/good.csv.part")

    async def leave(self, session: Session) -> None:
        session.connection.abort()
        await session.connection.wait_closed()

    async def nothing_is_left(self) -> None:
        """Return when no session, handle or file without an owner is there."""
        [server] = [each for each in dict(self.gateway.running.mesh.intakes).values() if isinstance(each, SftpServer)]
        await until(lambda: not server._gates and not server._trees and not len(server._crowd), within_s=LEAVE_S)
        spool = self.gateway.running.state.spool
        folder: Path = spool._directory

        def clean() -> bool:
            known = {upload.id for places in spool._places.values() for found in places.values() for upload in found}
            return (
                not _open_files(folder)
                and _stems(folder) <= known
                and not any(upload.writers for upload in spool.uploads())
            )

        # What was renamed to its final name is processed meanwhile, and has files of its own for a moment.
        await until(clean, within_s=LEAVE_S)


def _stems(folder: Path) -> set[str]:
    return {file.stem for file in folder.iterdir()}


def _open_files(folder: Path) -> list[Path]:
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(handle.readlink())
    return [path for path in found if path.is_relative_to(folder)]


class BadClient(RuleBasedStateMachine):
    """What such a client sends, and what it must get."""

    bench: ClassVar[Bench]

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []
        self.open: set[bytes] = set()
        self.number = 0
        self.session: Session | None = None

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
        """Send these at once, and look at the answer to each."""
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
        """What an answer may be."""
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
        """Send something and go, and look at what is left."""
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

    def begun(self) -> Session:
        """The session, or a new one after one that has ended."""
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


async def test_whatever_a_client_sends_it_is_answered_or_put_out_and_nothing_is_left(bench: Bench) -> None:
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

    assert [] == [each for each in logs if each["event"] == "sftp_failed"]
    await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_client_that_goes_before_it_says_anything_leaves_nothing(bench: Bench) -> None:
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
async def test_a_client_of_an_older_version_is_put_out(bench: Bench, version: int) -> None:
    session = await bench.connect()
    async with asyncio.timeout(ANSWER_S):
        await session.begin(version)
        assert await session.receive() is None
    await bench.leave(session)
