"""
The ftp gateway against OpenSSH's server, a paramiko-based one and the plain ways: uploads, rows and profiles, memory,
what others in the service feel of it, small files and logins.
"""

import asyncio
import contextlib
import json
import random
import shutil
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter

import aiohttp
import asyncssh
import psutil

from ftp_gateway.parsing.formats import CHUNK_ROWS
from millrace.machine.child_process import child
from millrace.machine.ports import free_ports
from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from millrace.nats_servers.server import NatsServer
from millrace.verbs.bench import Report, Row, compare, rounds
from shared.contracts import profile_keys, streams, subjects
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings, child_environment
from shared.runtime.telemetry import Metrics

NAME = "ftp"
ROUNDS = 3
UPLOAD_BYTES = 64 << 20
STREAMS = 8
SFTPGO_MB_S = {1: (410, 469), STREAMS: (1578, 1893)}
"""
Uploads of SFTPGo and of OpenSSH 7.9 beside it, by streams, as SFTPGo publishes them: AES128-GCM, a Ryzen 5 3600 over
40 GbE (drakkan/sftpgo, docs/performance.md). Their ratio is what can be compared with ours.
"""
PUSH_ROWS = 1_000_000
FEW_ROWS, MANY_ROWS = 10_000, 3_000_000
PROFILES = 300_000
PLAIN_SHARE = 20
"""The plain ways are measured on this part of the rows, and reckoned up."""
IDLE_TRIPS = 500
SMALL_FILES = 500
LOGINS = 200

PARAMIKO = """
import os, socket, sys, threading
import paramiko

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
KEY = paramiko.ECDSAKey.generate()

class Server(paramiko.ServerInterface):
    def check_auth_publickey(self, user, key):
        return paramiko.AUTH_SUCCESSFUL
    def get_allowed_auths(self, user):
        return "publickey"
    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED

class Files(paramiko.SFTPServerInterface):
    def stat(self, path):
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(FOLDER + self.canonicalize(path)))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
    lstat = stat
    def open(self, path, flags, attributes):
        handle = paramiko.SFTPHandle(flags)
        handle.writefile = handle.readfile = os.fdopen(os.open(FOLDER + self.canonicalize(path), flags, 0o600), "wb")
        return handle

def serve(client):
    transport = paramiko.Transport(client)
    transport.add_server_key(KEY)
    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
    try:
        transport.start_server(server=Server())
    except Exception:
        transport.close()

listener = socket.create_server(("127.0.0.1", PORT), backlog=512)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
"""
"""A server as paramiko's own demonstration has it."""

SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


class UploadServer:
    """A server to sign in at, and where in it files may be put."""

    def __init__(self, folder: Path, port: int, user: str, directory: str = "") -> None:
        self.folder = folder
        self.port = port
        self.user = user
        self.directory = directory

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        async with asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=self.user,
            client_keys=[str(self.folder / "user")],
            known_hosts=None,
            config=None,
            login_timeout=60,
        ) as connection:
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[asyncssh.SFTPClient]:
        async with self.connect() as connection, connection.start_sftp_client() as client:
            yield client

    async def put(self, file: Path, name: str) -> None:
        """By OpenSSH's client."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        process = await asyncio.create_subprocess_exec(
            *("sftp", "-q", "-F", "none", "-P", str(self.port), "-i", str(self.folder / "user")),
            *(part for option in options for part in ("-o", option)),
            *("-b", "-", f"{self.user}@127.0.0.1"),
            stdin=asyncio.subprocess.PIPE,
            stdout=DEVNULL,
        )
        await process.communicate(f"put {file} {self.directory}/{name}\n".encode())
        assert 0 == process.returncode, "sftp has failed"


class GatewayProcess(UploadServer):
    """The service as a process of a local mesh."""

    def __init__(self, folder: Path, mesh: LocalMesh, http: aiohttp.ClientSession) -> None:
        super().__init__(folder, int(mesh.folder.addresses().sftp.rpartition(":")[2]), "shop.nightly")
        self.http = http
        self._pid = mesh.children["ftp-gateway"].pid

    def peak_mb(self) -> float:
        """Of the service and of what reads its files."""
        process = psutil.Process(self._pid)
        found = 0
        for each in (process, *process.children(recursive=True)):
            status = Path(f"/proc/{each.pid}/status").read_text()
            found += int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
        return found * 1024 / 1e6

    async def figure(self, name: str, label: str) -> float:
        """One counter of `/metrics`."""
        async with self.http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{") and label in line)


async def rows(report: Report) -> list[Row]:
    """Seconds, milliseconds, megabytes, and megabytes a second."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-")))
        for name in ("user", "host"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(folder / name)
            (folder / name).chmod(0o600)
            key.write_public_key(folder / f"{name}.pub")
        gateway = await stack.enter_async_context(_gateway(folder))
        return [
            *await _upload_rows(gateway, report),
            *await _push_rows(gateway, report),
            await _profile_row(gateway, report),
            *await _session_rows(gateway, report),
        ]


@asynccontextmanager
async def _gateway(folder: Path) -> AsyncIterator[GatewayProcess]:
    async with AsyncExitStack() as stack:
        mesh_folder = MeshFolder(folder / "mesh")
        stack.enter_context(mesh_folder.lock())
        settings = {"sftp_connections_per_address": 2 * LOGINS, "stream_max_bytes": f"PUSH={1 << 30}"}
        mesh = await stack.enter_async_context(LocalMesh(mesh_folder, settings=settings))
        headers = {"Authorization": f"Bearer {mesh_folder.admin_token()}"}
        url = mesh_folder.addresses().services["ftp-gateway"]
        http = await stack.enter_async_context(aiohttp.ClientSession(url, headers=headers))
        public_keys = [(folder / "user.pub").read_text().strip()]
        for path, value in (("", {"settle_s": 0}), ("/ftp-users/nightly", {"public_keys": public_keys})):
            async with http.put(f"/v1/apps/shop{path}", json=value) as answer:
                assert 200 == answer.status, await answer.text()
        yield GatewayProcess(folder, mesh, http)


async def _upload_rows(gateway: GatewayProcess, report: Report) -> list[Row]:
    if shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        report("sshd is not installed (Debian: openssh-server): no comparison of uploads")
        return []
    file = gateway.folder / "upload"
    await asyncio.to_thread(file.write_bytes, random.randbytes(UPLOAD_BYTES))
    async with _sshd(gateway.folder) as sshd:
        made: list[Row] = []
        for streams in (1, STREAMS):
            report(f"{ROUNDS} rounds in turn: {UPLOAD_BYTES >> 20} MiB by sftp, {streams} at once")

            async def upload(place: UploadServer, streams: int = streams) -> float:
                started = perf_counter()
                async with asyncio.TaskGroup() as tasks:
                    for number in range(streams):
                        tasks.create_task(place.put(file, f"{number}.part"))
                took = perf_counter() - started
                async with place.session() as client:
                    for number in range(streams):
                        await client.remove(f"{place.directory}/{number}.part")
                return streams * UPLOAD_BYTES / 1e6 / took

            measured = await rounds(ROUNDS, lambda: upload(gateway), lambda: upload(sshd))
            sftpgo, openssh = SFTPGO_MB_S[streams]
            beside = f"SFTPGo publishes {sftpgo / openssh:.2f} ({sftpgo} against {openssh} MB/s elsewhere)"
            name = f"upload by sftp, {streams} at once, against sshd"
            made.append(compare(name, *measured, "MB/s", at_least=0.8, beside=beside))
        return made


@asynccontextmanager
async def _sshd(folder: Path) -> AsyncIterator[UploadServer]:
    (port,) = free_ports(1)
    (folder / "put").mkdir()
    (folder / "sshd_config").write_text(SSHD.format(port=port, folder=folder))
    # It insists on its place for unprivileged children, which only the package's start script makes.
    await asyncio.to_thread(Path("/run/sshd").mkdir, exist_ok=True)
    command = ("/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config"))
    place = UploadServer(folder, port, psutil.Process().username(), str(folder / "put"))
    async with child("sshd", command, environment=child_environment(), log=folder / "sshd.log"):
        await _wait_port(port)
        yield place


async def _wait_port(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def _push_rows(gateway: GatewayProcess, report: Report) -> list[Row]:
    async with gateway.session() as client:
        idle = [await _trip(client) for _ in range(IDLE_TRIPS)]
    report(f"a push file of {FEW_ROWS:,} rows, one of {PUSH_ROWS:,} and one of {MANY_ROWS:,}")
    await _processed(gateway, _push_file(gateway.folder, FEW_ROWS), "few.csv")
    few_mb = gateway.peak_mb()
    file = _push_file(gateway.folder, PUSH_ROWS)
    took_s, trips = await _processed(gateway, file, "push.csv")
    plain_s = await _plain_push(file)
    await _processed(gateway, _push_file(gateway.folder, MANY_ROWS), "many.csv")
    return [
        compare(
            f"push file of {PUSH_ROWS:,} rows, against a plain loop of publishes",
            [took_s],
            [plain_s],
            "s",
            ours_at_most=PUSH_ROWS / 200_000,
        ),
        compare(
            "p99 of a STAT meanwhile, against an idle service", [_p99(trips)], [_p99(idle)], "ms", ours_at_most=100
        ),
        compare(
            f"peak RSS with {MANY_ROWS:,} rows, against {FEW_ROWS:,}",
            [gateway.peak_mb()],
            [few_mb],
            "MB",
            ours_at_most=150,
        ),
    ]


def _push_file(folder: Path, count: int) -> Path:
    file = folder / f"push-{count}.csv"
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            out.write(f"user-{number:08d};Merhaba Ayşe, bugün sana özel %{number % 90} indirim; hemen bak;")
            out.write(f"https://shop.example/c/{number}?utm=push\n")
    return file


async def _processed(gateway: GatewayProcess, file: Path, name: str, folder: str = "") -> tuple[float, list[float]]:
    """
    Seconds from the commit until the name is gone, and milliseconds of each look at it by another session.

    Looking takes processor time of both ends, on a machine that has little to spare: so it is done each 10 ms.
    """
    await gateway.put(file, f"{folder}/{name}.part")
    async with gateway.session() as client, gateway.session() as other:
        trips: list[float] = []
        started = perf_counter()
        await client.rename(f"{folder}/{name}.part", f"{folder}/{name}")
        looked_at = started
        while await other.exists(f"{folder}/{name}"):
            trips.append(1e3 * (perf_counter() - looked_at))
            await asyncio.sleep(0.01)
            looked_at = perf_counter()
        return perf_counter() - started, trips


async def _trip(client: asyncssh.SFTPClient) -> float:
    started = perf_counter()
    await client.stat("/")
    return 1e3 * (perf_counter() - started)


def _p99(measured: list[float]) -> float:
    return statistics.quantiles(measured, n=100)[98]


@asynccontextmanager
async def _streams() -> AsyncIterator[Bus]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-"))
        server = await stack.enter_async_context(NatsServer(Path(folder)))
        bus = await stack.enter_async_context(connect("bench", server.url, metrics=Metrics(), wait_s=5))
        for place in (streams.PUSH, streams.PROFILES):
            await ensure(bus, place, Settings())
        yield bus


async def _plain_push(file: Path) -> float:
    """As it is written first: split each line, and wait for each message."""
    async with _streams() as bus:
        started = perf_counter()
        for data in _plain_chunks(file):
            await bus.js.publish("push.send.shop.plain", data)
        return PLAIN_SHARE * (perf_counter() - started)


def _plain_chunks(file: Path) -> Iterator[bytes]:
    batch: list[dict[str, str]] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == PUSH_ROWS // PLAIN_SHARE:
                return
            ext_id, _, rest = line.rstrip("\n").partition(";")
            text, _, link = rest.rpartition(";")
            batch.append({"id": str(number), "ext_id": ext_id, "text": text, "deeplink": link})
            if len(batch) == CHUNK_ROWS:
                yield json.dumps(batch).encode()
                batch.clear()


async def _profile_row(gateway: GatewayProcess, report: Report) -> Row:
    report(f"a profile file of {PROFILES:,} rows, until all are in the store")
    file = gateway.folder / "profiles.txt"
    with file.open("w", encoding="utf-8") as out:
        out.write("~~~city~age~vip~since\n")
        for number in range(PROFILES):
            out.write(
                f'user-{number:08d}~u{number}@example.com~token{number}~"İstanbul"~{number % 90}~true~2026-11-22\n'
            )
    await gateway.put(file, "/Profile/profiles.txt.part")
    async with gateway.session() as client:
        started = perf_counter()
        await client.rename("/Profile/profiles.txt.part", "/Profile/profiles.txt")
        await _wait_consumed(gateway, PROFILES // CHUNK_ROWS)
        took_s = perf_counter() - started
    return compare(
        f"profile file of {PROFILES:,} rows applied, against a read and a write of each",
        [took_s],
        [await _plain_profiles()],
        "s",
        ours_at_most=PROFILES / 20_000,
    )


async def _wait_consumed(gateway: GatewayProcess, messages: int) -> None:
    while True:
        if await gateway.figure("millrace_bus_consumed_total", subjects.PROFILES_CONSUMER) >= messages:
            return
        await asyncio.sleep(0.25)


async def _plain_profiles() -> float:
    async with _streams() as bus:
        store = KeyValueStore(bus, streams.PROFILES)
        count = PROFILES // (5 * PLAIN_SHARE)
        started = perf_counter()
        for number in range(count):
            key = profile_keys.profile_key("shop", f"user-{number:08d}")
            assert await store.get(key) is None
            await store.put(key, json.dumps({"ext_id": key, "city": "İstanbul"}).encode(), expect_revision=0)
        return PROFILES / count * (perf_counter() - started)


async def _session_rows(gateway: GatewayProcess, report: Report) -> list[Row]:
    (port,) = free_ports(1)
    (gateway.folder / "paramiko").mkdir()
    command = (sys.executable, "-c", PARAMIKO, str(port), str(gateway.folder / "paramiko"))
    place = UploadServer(gateway.folder, port, "nightly")
    async with child("paramiko", command, environment=child_environment(), log=gateway.folder / "paramiko.log"):
        await _wait_port(port)
        report(f"{ROUNDS} rounds in turn: {SMALL_FILES} small files in one session")
        files = await rounds(ROUNDS, lambda: _small_files(gateway), lambda: _small_files(place))
        report(f"{LOGINS} logins in parallel on each side")
        logins = await rounds(1, lambda: _logins(gateway), lambda: _logins(place))
    return [
        compare(f"{SMALL_FILES} small files in one session, against paramiko", *files, "s"),
        compare(f"{LOGINS} logins in parallel, against paramiko", *logins, "s"),
    ]


async def _small_files(place: UploadServer) -> float:
    async with place.session() as client:
        started = perf_counter()
        for number in range(SMALL_FILES):
            async with client.open(f"/{number}.part", "wb") as file:
                await file.write(b"1;Hello;https://x.example\n")
        return perf_counter() - started


async def _logins(place: UploadServer) -> float:
    async def sign_in() -> None:
        # No session: the service lets one user have some of them at a time.
        async with place.connect():
            pass

    started = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(LOGINS):
            tasks.create_task(sign_in())
    return perf_counter() - started
