"""Port of the SFTP clients that customers use, and those that are Python libraries. No test lives here."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NoReturn

import asyncssh
import msgspec
import paramiko
import pytest

Moment = Callable[[], Awaitable[object]]
"""Returns when the moment has come."""
BLOCK_BYTES = 4096
"""Bytes under way at most, in an upload that is to break off: the rest of it has not been sent then."""


class Site(msgspec.Struct, frozen=True):
    """Address and login of a client, and a folder for its files."""

    host: str
    port: int
    login: str
    key: Path
    scratch: Path

    @property
    def ssh_options(self) -> tuple[str, ...]:
        """Options of OpenSSH that leave out this machine's configuration."""
        known = self.scratch / "known_hosts"
        given = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={known}", "IdentitiesOnly=yes", "BatchMode=yes")
        options = (f"Port={self.port}", f"IdentityFile={self.key}", "LogLevel=ERROR", *given)
        return tuple(word for option in options for word in ("-o", option))


class CustomerClient(ABC):
    """
    An SFTP client, as a data team uses it. A call skips the test where the client cannot do it, or is not installed.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    @abstractmethod
    async def upload(self, source: Path, path: str) -> None:
        """Upload with the defaults of the client."""

    @abstractmethod
    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        """Begin an upload, and die without a word when the moment has come."""

    async def resume(self, source: Path, path: str) -> None:
        """Upload the missing rest of a file."""
        self.cannot("resume an upload")

    async def rename(self, old: str, new: str) -> None:
        """Rename on the server."""
        self.cannot("rename on the server")

    async def delete(self, path: str) -> None:
        """Delete on the server."""
        self.cannot("delete")

    async def sizes(self, folder: str) -> dict[str, int]:
        """Return the files in a folder, with their sizes."""
        self.cannot("list")

    def cannot(self, what: str) -> NoReturn:
        pytest.skip(f"{type(self).__name__} does not {what}")


def block_of(source: Path) -> bytes:
    """Return the start of a file, for an upload that is to break off."""
    return source.read_bytes()[:BLOCK_BYTES]


def rest_of(source: Path, size: int) -> bytes:
    """Return the missing rest of a file."""
    return source.read_bytes()[size:]


class Paramiko(CustomerClient):
    """paramiko, the library of many Python scripts. `put` sends its blocks without waiting."""

    @contextmanager
    def session(self) -> Iterator[paramiko.SFTPClient]:
        """An SFTP session. Blocks: for a thread."""
        transport = paramiko.Transport((self.site.host, self.site.port))
        try:
            transport.connect(username=self.site.login, pkey=paramiko.Ed25519Key(filename=str(self.site.key)))
            client = paramiko.SFTPClient.from_transport(transport)
            assert client is not None
            yield client
        finally:
            transport.close()

    async def upload(self, source: Path, path: str) -> None:
        def work() -> None:
            with self.session() as client:
                client.put(str(source), path)

        await asyncio.to_thread(work)

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            with self.session() as client:
                file = client.open(path, "wb")
                file.write(block_of(source))
                asyncio.run_coroutine_threadsafe(_wait(moment), loop).result()
                channel = client.get_channel()
                assert channel is not None
                channel.get_transport().sock.close()

        await asyncio.to_thread(work)

    async def resume(self, source: Path, path: str) -> None:
        def work() -> None:
            with self.session() as client, client.open(path, "ab") as file:
                file.set_pipelined(True)
                file.write(rest_of(source, client.stat(path).st_size or 0))

        await asyncio.to_thread(work)

    async def rename(self, old: str, new: str) -> None:
        def work() -> None:
            with self.session() as client:
                client.posix_rename(old, new)

        await asyncio.to_thread(work)

    async def delete(self, path: str) -> None:
        def work() -> None:
            with self.session() as client:
                client.remove(path)

        await asyncio.to_thread(work)

    async def sizes(self, folder: str) -> dict[str, int]:
        def work() -> dict[str, int]:
            with self.session() as client:
                found = client.listdir_attr(folder)
                return {each.filename: each.st_size or 0 for each in found if each.longname.startswith("-")}

        return await asyncio.to_thread(work)


class AsyncSsh(CustomerClient):
    """asyncssh."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection."""
        async with asyncssh.connect(
            self.site.host,
            self.site.port,
            username=self.site.login,
            client_keys=[str(self.site.key)],
            known_hosts=None,
            config=None,
        ) as connection:
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[asyncssh.SFTPClient]:
        """An SFTP session."""
        async with self.connected() as connection, connection.start_sftp_client() as client:
            yield client

    async def upload(self, source: Path, path: str) -> None:
        async with self.session() as client:
            await client.put(str(source), path)

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        async with self.connected() as connection:
            client = await connection.start_sftp_client()
            file = await client.open(path, "wb")
            await file.write(block_of(source))
            await moment()
            connection.abort()

    async def resume(self, source: Path, path: str) -> None:
        async with self.session() as client, client.open(path, "ab") as file:
            await file.write(rest_of(source, await client.getsize(path) or 0))

    async def rename(self, old: str, new: str) -> None:
        async with self.session() as client:
            await client.rename(old, new)

    async def delete(self, path: str) -> None:
        async with self.session() as client:
            await client.remove(path)

    async def sizes(self, folder: str) -> dict[str, int]:
        async with self.session() as client:
            found = await client.readdir(folder)
            return {str(each.filename): each.attrs.size or 0 for each in found if str(each.longname).startswith("-")}


async def _wait(moment: Moment) -> None:
    await moment()
