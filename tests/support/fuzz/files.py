"""Files by SFTP with damage, as a customer uploads them, and bytes that are no SSH."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from support.fuzz.damage import Damage
from support.fuzz.http_requests import ROOT

PROCESSED_S = 90.0
SEEDS = {
    ".csv": (ROOT / "demo" / "push.csv").read_bytes(),
    ".txt": (ROOT / "demo" / "profile.txt").read_bytes(),
}
FOLDERS = {".csv": "", ".txt": "Profile/"}
SSH_HELLO = b"SSH-2.0-OpenSSH_9.6\r\n\x00\x00\x00\x2c\x06\x1e" + b"\x00" * 40


class Customer:
    """A customer that is signed in."""

    def __init__(self, sftp: asyncssh.SFTPClient) -> None:
        self._sftp = sftp

    async def upload(self, name: str, at_random: random.Random) -> str:
        """Upload a damaged file, and wait until it is processed. Returns its outcome, or `finding: …`."""
        ending = at_random.choice(list(SEEDS))
        data = Damage(at_random).of_bytes(SEEDS[ending] * at_random.choice((1, 1, 40)), 8)
        path = f"/{FOLDERS[ending]}{name}{ending}"
        try:
            async with asyncio.timeout(PROCESSED_S):
                async with self._sftp.open(path, "wb") as file:
                    await file.write(data)
                while await self._sftp.exists(path):
                    await asyncio.sleep(0.1)
                async with self._sftp.open(f"/errors/{name}{ending}.result.json", "rb") as file:
                    result = json.loads(await file.read())
        except (TimeoutError, asyncssh.Error, ValueError) as error:
            return f"finding: {path} {error!r} {data!r}"
        rows, ok, failed = (result.get(name, 0) for name in ("rows", "ok", "failed"))
        if ok + failed != rows:
            return f"finding: {path} {result} {data!r}"
        return str(result["outcome"])


@asynccontextmanager
async def open_customer(host: str, port: int, login: str, password: str) -> AsyncIterator[Customer]:
    """Sign in."""
    options = {"password": password, "known_hosts": None, "config": None, "client_keys": None}
    async with (
        asyncssh.connect(host, port, username=login, **options) as connection,
        connection.start_sftp_client() as sftp,
    ):
        yield Customer(sftp)


async def bother_ssh(host: str, port: int, source: str, at_random: random.Random) -> None:
    """Send bytes that are no SSH, from an address of loopback, and leave."""
    try:
        reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
    except ConnectionError:
        return
    try:
        writer.write(Damage(at_random).of_bytes(SSH_HELLO + at_random.randbytes(at_random.choice((0, 40, 40_000)))))
        async with asyncio.timeout(1):
            await reader.read(1 << 16)
            await reader.read(1 << 16)
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
