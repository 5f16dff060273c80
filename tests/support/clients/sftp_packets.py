"""SFTP of version 3, packet by packet: requests that a client may send, and mostly should not. No test lives here."""

import asyncio

import asyncssh
from asyncssh.constants import FXF_CREAT, FXF_READ, FXF_TRUNC, FXF_WRITE
from asyncssh.packet import Byte, String, UInt32, UInt64
from hypothesis import strategies as st
from msgspec import Struct, structs

from ftp_gateway.sftp.packets import MAX_PACKET_BYTES
from support.clients.ftp_gateway import ROW

ANSWER_S = 15.0
"""Longest time for an answer on a busy machine; without one in that time the gateway hangs."""
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
    """Stands for the n-th last handle that the session received, open or closed, or an invented one."""

    number: int
    invented: bytes


class Request(Struct, frozen=True):
    """A request: its type and its fields. It may be sent in part, or with more bytes than belong to it."""

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
    """A well-formed request of any type."""
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
    """Requests in a row. Composite for its short name in the output of hypothesis."""
    return draw(SEVERAL)


UNANSWERABLE = st.one_of(
    st.binary(max_size=4).map(String),
    st.tuples(st.integers(MAX_PACKET_BYTES + 1, (1 << 32) - 1).map(UInt32), st.binary(max_size=100)).map(b"".join),
)
"""Packets that are too short to be a request, or declare a length that is too long."""


class PacketSession:
    """One SFTP session, packet by packet."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self.sent = 0

    async def begin(self, version: int) -> bytes:
        """Open the channel, and return the answer to INIT."""
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
        """Return a packet, or None when the gateway has ended the session."""
        try:
            packet: bytes = await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(4)))
            return packet
        except (asyncio.IncompleteReadError, asyncssh.Error):
            return None
