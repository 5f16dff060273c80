"""
Client of a customer's FTPS server. FTP without TLS is not supported.

Configuration: `tls` (explicit on 21, implicit on 990), `max_tls`, and the trust in the certificate: the usual
    authorities, `ca_certificates`, or `certificate_sha256`.
Implementation: `ftplib` in a thread of the session's own, so that a slow server delays no other. Bytes cross into the
    event loop block by block: a thread never writes to a file of ours that was closed meanwhile.
Considerations: servers want the data channel to resume the TLS session of the control channel (vsftpd, FileZilla and
    AWS by default). `ftplib` does not (bpo-19500), and aioftp is uncertain (aio-libs/aioftp#37, #186). Some servers
    cannot with TLS 1.3: `max_tls`. Data channels go to the control channel's own address, whatever `PASV` answers.
    Names are bytes. `MLSD` says which entry is a file; without it each name is asked for by itself.
"""

import asyncio
import ftplib
import hashlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar, cast

from ftp_gateway.remotes.clients.ftplib_client import ANSWER_S, FtpsClient, from_wire, tls_context, to_wire, translated
from ftp_gateway.remotes.remote import Remote
from ftp_gateway.remotes.state import RemoteFile
from shared.errors import NotFoundError, TooLargeError
from shared.outgoing.door import Outgoing

T = TypeVar("T")

BLOCK_BYTES = 256 << 10
BINARY = "TYPE I"
OWN_LINES = 2
"""Lines of a listing that may stand for the directory itself and its parent."""


def check_certificates(remote: Remote) -> None:
    """Raises `InvalidError` for `ca_certificates` that are not PEM."""
    tls_context(remote)


class FtpsRemote:
    """A signed-in session. Satisfies `ftp_gateway.remotes.pull.RemoteServer`."""

    def __init__(self, ftp: FtpsClient, thread: "_Thread") -> None:
        self._ftp = ftp
        self._thread = thread

    async def list_files(self, directory: str, most: int) -> list[RemoteFile]:
        return await self._thread.do(lambda: self._list(directory, most))

    async def stat(self, path: str) -> RemoteFile | None:
        try:
            return await self._thread.do(lambda: self._stat(path))
        except NotFoundError:
            return None

    async def read(self, path: str, size_bytes: int) -> AsyncGenerator[bytes, None]:
        connection = await self._thread.do(lambda: self._transfer("RETR", path))
        received, whole = 0, False
        try:
            while received <= size_bytes and (block := await self._thread.do(lambda: connection.recv(BLOCK_BYTES))):
                received += len(block)
                yield block
            whole = received <= size_bytes
        finally:
            if not whole:
                # End the thread's wait and the session: a late answer must not pass for that to another command.
                for sock in (connection, self._ftp.sock):
                    if sock is not None:
                        with suppress(OSError):
                            sock.shutdown(socket.SHUT_RDWR)
                connection.close()
        if whole:
            await self._thread.do(lambda: self._end(connection))

    async def write(self, path: str, data: bytes) -> None:
        def store() -> None:
            connection = self._transfer("STOR", path)
            with connection:
                connection.sendall(data)
                self._end(connection)

        await self._thread.do(store)

    async def rename(self, path: str, to: str) -> None:
        await self._thread.do(lambda: self._ftp.rename(to_wire(path), to_wire(to)))

    async def remove(self, path: str) -> None:
        await self._thread.do(lambda: self._ftp.delete(to_wire(path)))

    async def make_directory(self, path: str) -> None:
        def make() -> None:
            # 550 and 521 also mean that the directory exists; a missing one fails at its first use.
            with suppress(ftplib.error_perm):
                self._ftp.mkd(to_wire(path))

        await self._thread.do(make)

    def _transfer(self, verb: str, path: str) -> socket.socket:
        # Each time, because a listing switches to text, in which servers change line ends.
        self._ftp.voidcmd(BINARY)
        return self._ftp.transfercmd(f"{verb} {to_wire(path)}")

    def _end(self, connection: socket.socket) -> None:
        """Close a data channel with TLS's close_notify, or servers take an upload for broken. Read the answer."""
        with connection, suppress(OSError):
            cast("ssl.SSLSocket", connection).unwrap()
        self._ftp.voidresp()

    def _list(self, directory: str, most: int) -> list[RemoteFile]:
        lines: list[str] = []

        def take(line: str) -> None:
            lines.append(line)
            _at_most(most + OWN_LINES, lines)

        try:
            self._ftp.retrlines(f"MLSD {to_wire(directory)}", take)
        except ftplib.error_perm as error:
            if not str(error).startswith(("500", "501", "502", "504")):
                raise
        else:
            return _at_most(most, [file for line in lines if (file := _fact_line(line)) is not None])
        lines.clear()
        self._ftp.retrlines(f"NLST {to_wire(directory)}", take)
        names = [from_wire(line).rpartition("/")[2] for line in lines]
        files = [self._measured(f"{directory.rstrip('/')}/{name}") for name in names if name]
        return _at_most(most, [file for file in files if file is not None])

    def _stat(self, path: str) -> RemoteFile | None:
        try:
            answer = self._ftp.sendcmd(f"MLST {to_wire(path)}")
        except ftplib.error_perm as error:
            if not str(error).startswith(("500", "501", "502", "504")):
                raise
            return self._measured(path)
        facts = next((line for line in answer.splitlines() if line.startswith(" ")), "")
        return _fact_line(facts.strip(), path.rpartition("/")[2])

    def _measured(self, path: str) -> RemoteFile | None:
        """Stat with the commands of older servers; an entry without a size is no file."""
        try:
            self._ftp.voidcmd(BINARY)
            size = self._ftp.sendcmd(f"SIZE {to_wire(path)}").split()[-1]
            modified_at = self._ftp.sendcmd(f"MDTM {to_wire(path)}").split()[-1]
        except ftplib.error_perm:
            return None
        return RemoteFile(name=path.rpartition("/")[2], size_bytes=int(size), modified_at=modified_at)


class _Thread:
    """The thread of one session. Its waits end when the session's sockets are shut down."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ftps")

    async def do(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with translated():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def end(self, last: Callable[[], None]) -> None:
        """Run `last` after the current call, and nothing after it."""
        self._pool.submit(last)
        self._pool.shutdown(wait=False)


@asynccontextmanager
async def open_ftps_remote(remote: Remote, outgoing: Outgoing) -> AsyncIterator[FtpsRemote]:
    """
    Sign in.

    Raises:
        UnknownHostError: The server's certificate is not trusted.
        CredentialsError: It does not take the password.
        UnavailableError: It cannot be reached, or speaks no FTPS.
    """
    async with _connected(remote, outgoing) as (ftp, thread):
        password = remote.password.reveal() if remote.password else ""
        await thread.do(lambda: ftp.enter(password))
        yield FtpsRemote(ftp, thread)


async def identify_ftps(remote: Remote, outgoing: Outgoing) -> str:
    """
    Return the server's certificate in words. Nothing secret is sent.

    Raises:
        UnknownHostError: Its certificate is not trusted.
        UnavailableError: It cannot be reached, or speaks no FTPS.
    """
    async with _connected(remote, outgoing) as (ftp, _):
        assert isinstance(ftp.sock, ssl.SSLSocket)
        digest = hashlib.sha256(ftp.sock.getpeercert(binary_form=True) or b"").hexdigest()
        return f"{ftp.sock.version()}, the certificate has the SHA-256 {digest} and is trusted"


@asynccontextmanager
async def _connected(remote: Remote, outgoing: Outgoing) -> AsyncIterator[tuple[FtpsClient, _Thread]]:
    ftp, thread = FtpsClient(remote, outgoing.authorities), _Thread()
    with await outgoing.tcp.dial(*remote.at) as sock:
        sock.settimeout(ANSWER_S)
        # TLS takes over the socket's descriptor; this copy stays ours, to end the thread's wait.
        end = sock.dup()
        try:
            await thread.do(lambda: ftp.begin(sock))
            yield ftp, thread
        finally:
            with end, suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            # In the thread: it may be about to open a socket that nothing else would close.
            thread.end(ftp.close)


def _fact_line(line: str, name: str | None = None) -> RemoteFile | None:
    """Parse a line of `MLSD` or `MLST` (RFC 3659, 7.2); None for the directory's own entries and for other lines."""
    facts, space, found = line.partition(" ")
    if not space:
        return None
    known = dict(fact.lower().partition("=")[::2] for fact in facts.split(";") if fact)
    if known.get("type") in {"cdir", "pdir"}:
        return None
    size = known.get("size", "")
    return RemoteFile(
        name=from_wire(found) if name is None else name,
        size_bytes=int(size) if size.isdecimal() else 0,
        modified_at=known.get("modify", ""),
        regular=known.get("type") == "file" and size.isdecimal(),
    )


def _at_most(most: int, found: list[T]) -> list[T]:
    if len(found) > most:
        raise TooLargeError("expected fewer files in the directory")
    return found
