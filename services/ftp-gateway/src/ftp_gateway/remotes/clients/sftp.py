"""
Client of a customer's SFTP server.

Configuration: `host_key`, and a password, a private key (with its passphrase), or both.
Implementation: asyncssh's client on a socket of ours. The server's host key is compared with the accepted one before
    anything secret is sent, so an unknown server never gets a password.
Considerations: answers are not trusted. The library's `read` returns zeros for a block that is missing in the middle,
    and less than the whole where a server says so (ronf/asyncssh#814). So blocks are requested and counted one by one,
    several at a time. Names and kinds of files come from `lstat`; links are not followed. Many servers have no
    `posix-rename`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar, cast

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_REGULAR

from ftp_gateway.remotes.clients.sftp_keys import accepted_key, client_key
from ftp_gateway.remotes.remote import OfferedHostKey, Remote, UnknownHostError
from ftp_gateway.remotes.state import RemoteFile
from shared.errors import CredentialsError, DeniedError, NotFoundError, TooLargeError, UnavailableError
from shared.outgoing.door import Outgoing

T = TypeVar("T")

LOGIN_S = 20.0
ANSWER_S = 30.0
"""Time limit of one answer."""
BLOCK_BYTES = 32 << 10
"""The packet that every server has to support (draft-ietf-secsh-filexfer-02, 3)."""
BLOCKS_AT_ONCE = 32
KEY_ALGORITHMS: dict[str, tuple[str, ...]] = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Signature algorithms of a key type, where the names differ; SHA-1 is left out."""
ANY_KEY = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class _Client(asyncssh.SSHClient):
    """Accepts one host key."""

    def __init__(self, accepted: asyncssh.SSHKey | None) -> None:
        self._accepted = accepted
        self.offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return self._accepted is not None and key.public_data == self._accepted.public_data


class SftpRemote:
    """A signed-in session. Satisfies `ftp_gateway.remotes.pull.RemoteServer`."""

    def __init__(self, client: asyncssh.SFTPClient) -> None:
        self._client = client

    async def list_files(self, directory: str, most: int) -> list[RemoteFile]:
        found: list[RemoteFile] = []
        with _translated():
            entries = self._client.scandir(directory)
            while (entry := await _in_time(anext(entries, None))) is not None:
                if (name := str(entry.filename)) in {".", ".."}:
                    continue
                if len(found) == most:
                    raise TooLargeError(f"expected at most {most} files in the directory")
                found.append(_file(name, entry.attrs))
        return found

    async def stat(self, path: str) -> RemoteFile | None:
        try:
            with _translated():
                return _file(path.rpartition("/")[2], await _in_time(self._client.lstat(path)))
        except NotFoundError:
            return None

    async def read(self, path: str, size_bytes: int) -> AsyncGenerator[bytes, None]:
        with _translated():
            async with await _in_time(self._client.open(path, "rb", block_size=0)) as file:
                offset = 0
                while offset < size_bytes:
                    end = min(size_bytes, offset + BLOCKS_AT_ONCE * BLOCK_BYTES)
                    starts = range(offset, end, BLOCK_BYTES)
                    blocks = await _in_time(
                        asyncio.gather(*(_block(file, at, min(BLOCK_BYTES, end - at)) for at in starts))
                    )
                    for block in blocks:
                        yield block
                        offset += len(block)
                        if len(block) < BLOCK_BYTES and offset < end:
                            return
                yield await _in_time(_block(file, size_bytes, 1))

    async def write(self, path: str, data: bytes) -> None:
        with _translated():
            async with await _in_time(self._client.open(path, "wb")) as file:
                for at in range(0, len(data), BLOCK_BYTES):
                    await _in_time(file.write(data[at : at + BLOCK_BYTES], at))

    async def rename(self, path: str, to: str) -> None:
        with _translated():
            await _in_time(self._client.rename(path, to))

    async def remove(self, path: str) -> None:
        with _translated():
            await _in_time(self._client.remove(path))

    async def make_directory(self, path: str) -> None:
        with _translated():
            await _in_time(self._client.makedirs(path, exist_ok=True))


@asynccontextmanager
async def open_sftp_remote(remote: Remote, outgoing: Outgoing) -> AsyncIterator[SftpRemote]:
    """
    Sign in.

    Raises:
        UnknownHostError: The server shows another key than the accepted one, or none was accepted yet.
        CredentialsError: It does not take the password or the key.
        UnavailableError: It cannot be reached, or speaks no SFTP.
    """
    accepted = accepted_key(remote)
    client = _Client(accepted)
    keys: list[asyncssh.SSHKey] = []
    if remote.private_key:
        keys.append(await asyncio.to_thread(client_key, remote.private_key, remote.passphrase))
    connection: asyncssh.SSHClientConnection | None = None
    sock = await outgoing.tcp.dial(*remote.at)
    try:
        with _translated(client, accepted):
            connection = await asyncssh.connect(
                remote.host,
                remote.at[1],
                sock=sock,
                config=None,
                client_factory=lambda: client,
                known_hosts=([], [], []),
                server_host_key_algs=_algorithms(accepted),
                username=remote.username,
                password=remote.password.reveal() if remote.password else None,
                client_keys=keys or None,
                agent_path=None,
                gss_host=None,
                preferred_auth="publickey,password,keyboard-interactive",
                compression_algs=None,
                login_timeout=LOGIN_S,
                keepalive_interval=15,
            )
            sftp = await _in_time(connection.start_sftp_client())
        yield SftpRemote(sftp)
    finally:
        if connection is not None:
            connection.abort()
            await connection.wait_closed()
        sock.close()


async def identify_sftp(remote: Remote, outgoing: Outgoing) -> str:
    """
    Return the server's host key in words. Nothing secret is sent.

    Raises:
        UnknownHostError: It shows another key than the accepted one, or none was accepted yet.
        UnavailableError: It cannot be reached, or speaks no SSH.
    """
    accepted = accepted_key(remote)
    with await outgoing.tcp.dial(*remote.at) as sock, _translated():
        async with asyncio.timeout(LOGIN_S):
            offered = await asyncssh.get_server_host_key(
                remote.host, remote.at[1], sock=sock, config=None, server_host_key_algs=_algorithms(accepted)
            )
    if offered is None:
        raise UnavailableError("the server shows no host key")
    if accepted is None or offered.public_data != accepted.public_data:
        raise _unknown(offered, accepted)
    return f"the host key is {offered.get_fingerprint()}, as accepted"


def _algorithms(accepted: asyncssh.SSHKey | None) -> list[str]:
    # A server with several keys shows the first whose algorithm we offer, so only the accepted key's is offered.
    if accepted is None:
        return list(ANY_KEY)
    name = accepted.get_algorithm()
    return list(KEY_ALGORITHMS.get(name, (name,)))


def _unknown(offered: asyncssh.SSHKey, accepted: asyncssh.SSHKey | None) -> UnknownHostError:
    key = OfferedHostKey(
        public_key=" ".join(offered.export_public_key().decode().split()[:2]), fingerprint=offered.get_fingerprint()
    )
    if accepted is None:
        message = f"the server's host key, {key.fingerprint} ({key.public_key}), has to be accepted first"
    else:
        message = f"the server shows another host key, {key.fingerprint}, than {accepted.get_fingerprint()}"
    return UnknownHostError(message, key)


async def _in_time(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(ANSWER_S):
        return await answer


async def _block(file: asyncssh.SFTPClientFile, offset: int, size_bytes: int) -> bytes:
    """Read a block, whole unless the file ends within it."""
    block = b""
    while len(block) < size_bytes:
        part = cast("bytes", await file.read(size_bytes - len(block), offset + len(block)))
        if not part:
            break
        block += part
    return block


def _file(name: str, attrs: asyncssh.SFTPAttrs) -> RemoteFile:
    regular = attrs.type == FILEXFER_TYPE_REGULAR
    return RemoteFile(name=name, size_bytes=attrs.size or 0, modified_at=str(attrs.mtime or 0), regular=regular)


@contextmanager
def _translated(client: _Client | None = None, accepted: asyncssh.SSHKey | None = None) -> Iterator[None]:
    """Translate the library's failures. The server's text is cut to 200 characters: it is not trusted."""
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        if client is not None and client.offered is not None:
            raise _unknown(client.offered, accepted) from None
        raise UnknownHostError(f"the server could not be identified: {error.reason[:200]}") from None
    except asyncssh.PermissionDenied:
        raise CredentialsError("the server does not take the username with this password or key") from None
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
        raise NotFoundError(f"the server has no such file or directory: {error.reason[:200]}") from None
    except asyncssh.SFTPPermissionDenied as error:
        raise DeniedError(f"the server does not allow it: {error.reason[:200]}") from None
    except asyncssh.SFTPError as error:
        raise UnavailableError(f"the server failed: {error.reason[:200]}") from None
    except asyncssh.Error as error:
        raise UnavailableError(f"no SFTP session: {error.reason[:200]}") from None
    except TimeoutError:
        raise UnavailableError(f"the server did not answer within {ANSWER_S:g} s") from None
    except OSError as error:
        raise UnavailableError(f"the connection failed: {error.strerror or type(error).__name__}") from None
