"""The demo's files, put by SFTP with a real client, and the stand-in push engine's message logs of the push file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePosixPath

import asyncssh
import msgspec
from msgspec import Struct

from millrace.demo.demo_run import StepResult, equal
from millrace.demo.environment import APP, DemoEnvironment
from millrace.demo.push_engine import NAME
from shared.errors import UnavailableError

USER = "erp"
PASSWORD = "correct-horse-battery-staple"
PROCESSED_S = 20.0

PUSH_ROWS = "7 rows accepted, 2 rejected, file gone"
PROFILE_ROWS = "3 rows accepted, 0 rejected, file gone"
"""Results that the files of demo/ are made for."""


class FileCounts(Struct, frozen=True):
    """Counts from `/errors/<name>.result.json`, which leaves zeros out."""

    ok: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return f"{self.ok} rows accepted, {self.failed} rejected, file gone"


async def put_push_file(environment: DemoEnvironment) -> StepResult:
    """Upload push.csv and check its outcome: bad rows are reported, good ones become push commands."""
    counts, report = await _put(environment, PurePosixPath("/push.csv"))
    environment.pushes = counts.ok
    return equal(PUSH_ROWS, str(counts), *(f"/errors/push.csv.report.csv  {line}" for line in report))


async def put_profile_file(environment: DemoEnvironment) -> StepResult:
    """Upload profile.txt to the folder of profiles and check its outcome."""
    counts, report = await _put(environment, PurePosixPath("/Profile/profile.txt"))
    return equal(PROFILE_ROWS, str(counts), *report)


async def run_push_engine(environment: DemoEnvironment) -> StepResult:
    """Wait for the push engine and check that every command became a message log."""
    await environment.engine.wait_sent(environment.pushes)
    first = environment.engine.sent[0]
    deeplink = msgspec.json.decode(first.attributes)["deeplink"]
    return equal(
        f"{environment.pushes} message logs",
        f"{len(environment.engine.sent)} message logs",
        f"by the {NAME}; the first: {first.code} to {first.user_id}, {deeplink}",
    )


async def _put(environment: DemoEnvironment, path: PurePosixPath) -> tuple[FileCounts, list[str]]:
    """Upload a file of demo/, wait until it is removed, and return its counts and its report's lines."""
    async with _client(environment.folder.addresses().sftp) as sftp:
        await sftp.put(str(environment.inputs / path.name), str(path))
        await _wait_removed(sftp, path)
        result = await _read(sftp, f"/errors/{path.name}.result.json")
        has_report = f"{path.name}.report.csv" in await sftp.listdir("/errors")
        report = await _read(sftp, f"/errors/{path.name}.report.csv") if has_report else b""
    return msgspec.json.decode(result, type=FileCounts), report.decode().splitlines()


async def _wait_removed(sftp: asyncssh.SFTPClient, path: PurePosixPath) -> None:
    """Wait until the gateway has removed a processed file. Polls, because SFTP sends no notification."""
    try:
        async with asyncio.timeout(PROCESSED_S):
            while True:
                if path.name not in await sftp.listdir(str(path.parent)):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise UnavailableError(f"{path} was still there after {PROCESSED_S:.0f} s") from None


async def _read(sftp: asyncssh.SFTPClient, path: str) -> bytes:
    async with sftp.open(path, "rb") as file:
        content: bytes = await file.read()
        return content


@asynccontextmanager
async def _client(address: str) -> AsyncIterator[asyncssh.SFTPClient]:
    host, _, port = address.rpartition(":")
    try:
        # The host key was made a second ago, on this machine: there is nothing to compare it with.
        connection = asyncssh.connect(
            host, int(port), username=f"{APP}.{USER}", password=PASSWORD, known_hosts=None, config=None, agent_path=None
        )
        async with connection as signed_in, signed_in.start_sftp_client() as sftp:
            yield sftp
    except (asyncssh.Error, OSError) as error:
        raise UnavailableError(f"SFTP at {address}: {error}") from error
