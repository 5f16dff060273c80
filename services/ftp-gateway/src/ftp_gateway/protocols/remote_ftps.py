"""
A customer's own FTPS server, of which we are the client. FTP without TLS is not spoken.

Configuration: `tls` (explicit on 21, implicit on 990), `max_tls`, and what the certificate is known by: the usual
authorities, `ca_certificates`, or `certificate_sha256`.
Implementation: `ftplib` in a thread that the session has to itself, so that a slow server holds up nobody else. Bytes
cross into the event loop block by block: a thread never writes to a file of ours that was closed meanwhile.
Considerations: servers want the data channel to resume the session of the control channel (vsftpd, FileZilla and AWS
by default), which `ftplib` does not (bpo-19500) and aioftp does in doubt (aio-libs/aioftp#37, #186). Some cannot with
TLS 1.3: `max_tls`. Data channels go to the control channel's own address, whatever `PASV` answers. Names are bytes;
`MLSD` tells what is a file, and servers without it are asked name by name.
"""

import asyncio
import ftplib
import hashlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar, cast

from ftp_gateway.protocols.dialing import dial
from ftp_gateway.remotes import Remote, RemoteFile, UnknownHostError
from shared.errors import (
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)

T = TypeVar("T")

ANSWER_S = 30.0
"""How long one answer, or one block, may take."""
BLOCK_BYTES = 256 << 10
BINARY = "TYPE I"
MOST_LINES = 200
"""Of an answer; greetings and `FEAT` are the long ones."""
OWN_LINES = 2
"""Lines of a listing that may tell of the directory itself and of the one above."""


def check_certificates(remote: Remote) -> None:
    """Raises `InvalidError` for authorities that are none."""
    _context(remote)


class _Ftp(ftplib.FTP_TLS):
    """`ftplib` on a socket of ours, with data channels that resume the session of the control channel."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(context=_context(remote), timeout=ANSWER_S, encoding="latin-1")
        self._remote = remote

    def begin(self, sock: socket.socket) -> None:
        """TLS from the first byte or after the greeting; then the server is known, and nothing was told to it."""
        self.host, self.port = self._remote.at
        self.af = sock.family
        if self._remote.tls == "implicit":
            sock = self._secured(sock, None)
        self._use(sock)
        self.welcome = self.getresp()
        if self._remote.tls == "explicit":
            self.voidcmd("AUTH TLS")
            self._use(self._secured(sock, None))

    def enter(self, password: str) -> None:
        """Sign in, and have data channels secured too. What the server says is not repeated: it may be the password."""
        try:
            answer = self.sendcmd(f"USER {_to_wire(self._remote.username)}")
            if answer.startswith("3"):
                answer = self.sendcmd(f"PASS {_to_wire(password)}")
        except ftplib.error_perm as error:
            answer = str(error)
        except ftplib.Error:
            raise UnavailableError("the server lets nobody in now") from None
        if not answer.startswith("2"):
            raise CredentialsError(f"the server does not take the username with this password: {answer[:3]}")
        self.prot_p()

    def getmultiline(self) -> str:
        """An answer of any number of lines would be one of any size."""
        lines = [self.getline()]
        code = lines[0][:3]
        while (len(lines) == 1 and lines[0][3:4] == "-") or (len(lines) > 1 and not _ends(lines[-1], code)):
            if len(lines) == MOST_LINES:
                raise ftplib.error_proto("the answer has no end")
            lines.append(self.getline())
        return "\n".join(lines)

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        try:
            assert isinstance(self.sock, ssl.SSLSocket)
            return self._secured(connection, self.sock.session), size
        except BaseException:
            connection.close()
            raise

    def _secured(self, sock: socket.socket, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        secured = self.context.wrap_socket(sock, server_hostname=self.host, session=session)
        pin = self._remote.certificate_sha256
        if pin is not None:
            found = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
            if found != pin:
                secured.close()
                raise UnknownHostError(f"the server's certificate has the SHA-256 {found}, and not the accepted one")
        return secured

    def _use(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("r", encoding=self.encoding)


class FtpsRemote:
    """A signed-in session. Satisfies `ftp_gateway.pulling.Server`."""

    def __init__(self, ftp: _Ftp, thread: "_Thread") -> None:
        self._ftp = ftp
        self._thread = thread

    async def list_files(self, directory: str, most: int) -> list[RemoteFile]:
        return await self._thread.do(lambda: self._list(directory, most))

    async def look(self, path: str) -> RemoteFile | None:
        try:
            return await self._thread.do(lambda: self._look(path))
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
                # What the thread waits for ends, and the session: an answer to this must not pass for another's.
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
        await self._thread.do(lambda: self._ftp.rename(_to_wire(path), _to_wire(to)))

    async def remove(self, path: str) -> None:
        await self._thread.do(lambda: self._ftp.delete(_to_wire(path)))

    async def make_directory(self, path: str) -> None:
        def make() -> None:
            # 550 and 521 are also said of a directory that is there; what is not is noticed by whoever uses it.
            with suppress(ftplib.error_perm):
                self._ftp.mkd(_to_wire(path))

        await self._thread.do(make)

    def _transfer(self, verb: str, path: str) -> socket.socket:
        # Each time: a listing has made it text, in which servers change line ends.
        self._ftp.voidcmd(BINARY)
        return self._ftp.transfercmd(f"{verb} {_to_wire(path)}")

    def _end(self, connection: socket.socket) -> None:
        """Close a data channel as TLS does, or servers wait and take an upload for broken. Hear the answer."""
        with connection, suppress(OSError):
            cast("ssl.SSLSocket", connection).unwrap()
        self._ftp.voidresp()

    def _list(self, directory: str, most: int) -> list[RemoteFile]:
        lines: list[str] = []

        def take(line: str) -> None:
            lines.append(line)
            _at_most(most + OWN_LINES, lines)

        try:
            self._ftp.retrlines(f"MLSD {_to_wire(directory)}", take)
        except ftplib.error_perm as error:
            if not str(error).startswith(("500", "501", "502", "504")):
                raise
        else:
            return _at_most(most, [file for line in lines if (file := _fact_line(line)) is not None])
        lines.clear()
        self._ftp.retrlines(f"NLST {_to_wire(directory)}", take)
        names = [_from_wire(line).rpartition("/")[2] for line in lines]
        files = [self._measured(f"{directory.rstrip('/')}/{name}") for name in names if name]
        return _at_most(most, [file for file in files if file is not None])

    def _look(self, path: str) -> RemoteFile | None:
        try:
            answer = self._ftp.sendcmd(f"MLST {_to_wire(path)}")
        except ftplib.error_perm as error:
            if not str(error).startswith(("500", "501", "502", "504")):
                raise
            return self._measured(path)
        facts = next((line for line in answer.splitlines() if line.startswith(" ")), "")
        return _fact_line(facts.strip(), path.rpartition("/")[2])

    def _measured(self, path: str) -> RemoteFile | None:
        """By the commands of older servers: what has no size is no file."""
        try:
            self._ftp.voidcmd(BINARY)
            size = self._ftp.sendcmd(f"SIZE {_to_wire(path)}").split()[-1]
            modified_at = self._ftp.sendcmd(f"MDTM {_to_wire(path)}").split()[-1]
        except ftplib.error_perm:
            return None
        return RemoteFile(name=path.rpartition("/")[2], size_bytes=int(size), modified_at=modified_at)


class _Thread:
    """One thread for one session; what it waits for ends when the session's sockets are shut."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ftps")

    async def do(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with _translated():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def open_ftps_remote(remote: Remote, *, allow_private: bool) -> AsyncIterator[FtpsRemote]:
    """
    Sign in.

    Raises:
        UnknownHostError: The server's certificate is not trusted.
        CredentialsError: It does not take the password.
        UnavailableError: It cannot be reached, or speaks no FTPS.
    """
    async with _connected(remote, allow_private=allow_private) as (ftp, thread):
        password = remote.password.reveal() if remote.password else ""
        await thread.do(lambda: ftp.enter(password))
        yield FtpsRemote(ftp, thread)


async def identify_ftps(remote: Remote, *, allow_private: bool) -> str:
    """
    What the server is known by, in words. Nothing is told to it.

    Raises:
        UnknownHostError: Its certificate is not trusted.
        UnavailableError: It cannot be reached, or speaks no FTPS.
    """
    async with _connected(remote, allow_private=allow_private) as (ftp, _):
        assert isinstance(ftp.sock, ssl.SSLSocket)
        digest = hashlib.sha256(ftp.sock.getpeercert(binary_form=True) or b"").hexdigest()
        return f"{ftp.sock.version()}, the certificate has the SHA-256 {digest} and is trusted"


@asynccontextmanager
async def _connected(remote: Remote, *, allow_private: bool) -> AsyncIterator[tuple[_Ftp, _Thread]]:
    ftp, thread = _Ftp(remote), _Thread()
    with await dial(*remote.at, allow_private=allow_private) as sock:
        sock.settimeout(ANSWER_S)
        # TLS takes the descriptor over from its socket; this one stays ours, to end what a thread waits for.
        end = sock.dup()
        try:
            await thread.do(lambda: ftp.begin(sock))
            yield ftp, thread
        finally:
            with end, suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            thread.close()
            ftp.close()


def _context(remote: Remote) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if remote.max_tls == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if remote.ca_certificates is not None:
        context = _trusting(context, remote.ca_certificates)
    if remote.certificate_sha256 is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _trusting(usual: ssl.SSLContext, authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = usual.minimum_version, usual.maximum_version
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        raise InvalidError("expected certificates in PEM", field="ca_certificates") from None
    return context


def _fact_line(line: str, name: str | None = None) -> RemoteFile | None:
    """A line of `MLSD` or `MLST` (RFC 3659, 7.2); None for a directory's own entries and what is no such line."""
    facts, space, found = line.partition(" ")
    if not space:
        return None
    known = dict(fact.lower().partition("=")[::2] for fact in facts.split(";") if fact)
    if known.get("type") in {"cdir", "pdir"}:
        return None
    size = known.get("size", "")
    return RemoteFile(
        name=_from_wire(found) if name is None else name,
        size_bytes=int(size) if size.isdecimal() else 0,
        modified_at=known.get("modify", ""),
        regular=known.get("type") == "file" and size.isdecimal(),
    )


def _at_most(most: int, found: list[T]) -> list[T]:
    if len(found) > most:
        raise TooLargeError("expected fewer files in the directory")
    return found


def _ends(line: str, code: str) -> bool:
    """Whether a line ends an answer of several (RFC 959, 4.2)."""
    return line[:3] == code and line[3:4] != "-"


def _to_wire(text: str) -> str:
    return text.encode().decode("latin-1")


def _from_wire(text: str) -> str:
    return text.encode("latin-1").decode(errors="replace")


@contextmanager
def _translated() -> Iterator[None]:
    """The library's failures as ours. What a server says is cut short: it is a stranger's text."""
    try:
        yield
    except MillraceError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise UnknownHostError(f"the server's certificate is not trusted: {error.verify_message}") from None
    except ftplib.error_perm as error:
        raise _refusal(str(error)[:200]) from None
    except (ftplib.Error, EOFError) as error:
        raise UnavailableError(f"the server failed: {str(error)[:200] or 'it closed the connection'}") from None
    except TimeoutError:
        raise UnavailableError(f"the server did not answer within {ANSWER_S:g} s") from None
    except OSError as error:
        raise UnavailableError(f"the connection failed: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise UnavailableError("the server's answer is no FTP") from None


def _refusal(answer: str) -> MillraceError:
    match answer[:3]:
        case "530":
            return CredentialsError("the server wants another sign-in")
        case "550":
            return NotFoundError(f"the server has no such file or directory, or does not allow it: {answer}")
        case _:
            return DeniedError(f"the server refuses: {answer}")
