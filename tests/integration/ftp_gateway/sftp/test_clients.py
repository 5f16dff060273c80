"""
The clients that customers use: an upload, a rename, a resumed upload, a deletion, and a client that dies.

One gateway serves all tests of this file, each in an app of its own.
"""

import asyncio
import os
import pty
from collections.abc import AsyncIterator, Mapping
from itertools import count
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from shared.messaging.bus import Bus
from support.clients.ftp_gateway import PASSWORD, Gateway, events, open_gateway, rows
from support.clients.sftp import AsyncSsh, CustomerClient, Paramiko, Site
from support.clients.sftp_programs import Lftp, NewRclone, OpenSsh, Rclone, Scp, Sshfs
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS: tuple[type[CustomerClient], ...] = (OpenSsh, Scp, Rclone, NewRclone, Lftp, Paramiko, AsyncSsh, Sshfs)
NUMBERS = count(1)
SLOWLY = {"bandwidth_bytes_s": 64 << 10}
"""Limits of a user whose uploads are still under way when the test checks them, for any speed of the client."""
SETTLES = {"settle_s": 0.05}
WAITS = {"settle_s": 600}


class App:
    """An app of one test, its user, and the outcome of his files."""

    def __init__(self, gateway: Gateway, bus: Bus, site: Site) -> None:
        self.gateway = gateway
        self.bus = bus
        self.site = site
        self.key = site.login.partition(".")[0]

    async def change(self, settings: Mapping[str, object], limits: Mapping[str, object] | None = None) -> None:
        """Change the app and its user."""
        await self.gateway.put(f"/v1/apps/{self.key}", settings)
        public = self.site.key.with_suffix(".pub").read_text()
        await self.gateway.user("cron", app_key=self.key, password=PASSWORD, public_keys=[public], limits=limits or {})

    @property
    def spool(self) -> Spool:
        found: Spool = self.gateway.running.state.spool
        return found

    @property
    def uploads(self) -> list[Upload]:
        """List the app's files that wait."""
        return [upload for upload in self.spool.uploads() if upload.info.app_key == self.key]

    def bytes_of(self, name: str) -> bytes:
        """Return the bytes that have arrived under a name."""
        upload = self.spool.find(Place(self.key, "", name))
        assert upload is not None, [upload.info.name for upload in self.uploads]
        return self.spool.path(upload).read_bytes()

    async def under_way(self) -> None:
        """Return when bytes of an upload have arrived."""
        await until(lambda: any(upload.size_bytes for upload in self.uploads))

    async def sent(self) -> list[str]:
        """Return the external ids in the published push commands."""
        return [row.ext_id for row in await rows(self.bus, self.key)]

    def told(self) -> dict[str, bytes]:
        """Return the reports in /errors, by name."""
        found = self.spool.entries(self.key, "errors")
        return {report.info.name: self.spool.path(report).read_bytes() for report in found}

    def file(self, name: str, size: int = 0, first: int = 1) -> tuple[Path, list[str]]:
        """
        A file of at least so many bytes, and its external ids. Its first row has 64 bytes and the others 128, so that
        a cut at the end of a block cuts a row in the middle of its text.
        """
        ids = [f"{number:08}" for number in range(first, first + max(3, 1 + (size + 63) // 128))]
        lines = [
            f"{ext_id};{'x' * (15 if at == 0 else 79)};https://shop.example/{ext_id}a/b/c\n"
            for at, ext_id in enumerate(ids)
        ]
        path = self.site.scratch / name
        path.write_text("".join(lines))
        return path, ids


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory, host_keys: bytes) -> AsyncIterator[tuple[Gateway, Bus]]:
    async with open_gateway(tmp_path_factory.mktemp("clients"), host_keys) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def app(mesh: tuple[Gateway, Bus], tmp_path: Path) -> App:
    gateway, bus = mesh
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    key.write_public_key(tmp_path / "key.pub")
    (tmp_path / "key").chmod(0o600)
    site = Site(gateway.host, gateway.port, f"app{next(NUMBERS)}.cron", tmp_path / "key", tmp_path)
    app = App(gateway, bus, site)
    await app.change(SETTLES)
    return app


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__)
def client(request: pytest.FixtureRequest, app: App) -> CustomerClient:
    made: CustomerClient = request.param(app.site)
    return made


async def test_an_upload_is_published_its_bad_rows_are_reported_and_it_is_deleted(
    app: App, client: CustomerClient
) -> None:
    source, ids = app.file("push.csv")
    source.write_text(source.read_text() + "no row\n")

    await client.upload(source, "/push.csv")
    await until(lambda: events(app.bus, "completed", app.key))
    await until(lambda: not app.uploads)

    assert ids == await app.sent()
    told = app.told()
    assert {"push.csv.report.csv", "push.csv.result.json"} == set(told)
    assert b"4;columns;" in told["push.csv.report.csv"]
    assert [] == await events(app.bus, "partial", app.key)


async def test_a_rename_to_the_final_name_publishes_at_once(app: App, client: CustomerClient) -> None:
    await app.change(WAITS)
    source, ids = app.file("push.csv")

    await client.upload(source, "/push.csv.part")
    assert [] == await app.sent()
    await client.rename("/push.csv.part", "/push.csv")
    await until(lambda: events(app.bus, "completed", app.key))

    assert ids == await app.sent()


async def test_three_megabytes_arrive_as_they_were_sent(app: App, client: CustomerClient) -> None:
    await app.change(WAITS)
    source, _ = app.file("big.csv", size=3_000_000)

    await client.upload(source, "/big.csv")

    assert source.read_bytes() == app.bytes_of("big.csv")


async def test_files_are_listed_until_they_are_deleted(app: App, client: CustomerClient) -> None:
    await app.change(WAITS)
    source, _ = app.file("push.csv")

    await client.upload(source, "/push.csv.part")
    await client.upload(source, "/Profile/users.part")
    assert {"push.csv.part": source.stat().st_size} == await client.sizes("/")
    assert {"users.part": source.stat().st_size} == await client.sizes("/Profile")
    await client.delete("/push.csv.part")
    assert {} == await client.sizes("/")

    assert ["users.part"] == [upload.info.name for upload in app.uploads]


async def test_an_upload_that_breaks_off_is_not_processed(app: App, client: CustomerClient) -> None:
    await app.change(SETTLES, SLOWLY)
    source, _ = app.file("broken.csv", size=256 << 10)

    await client.break_off(source, "/broken.csv", app.under_way)
    await app.change(SETTLES)
    await until(lambda: events(app.bus, "partial", app.key))

    later, ids = app.file("later.csv", first=90_000_000)
    await client.upload(later, "/later.csv")
    await until(lambda: events(app.bus, "completed", app.key))
    assert ids == await app.sent()
    assert ["later.csv.result.json"] == list(app.told())


async def test_an_upload_that_broke_off_is_resumed_and_published_once(app: App, client: CustomerClient) -> None:
    await app.change(SETTLES, SLOWLY)
    source, ids = app.file("push.csv", size=256 << 10)

    await client.break_off(source, "/push.csv", app.under_way)
    await app.change(SETTLES)
    await until(lambda: events(app.bus, "partial", app.key))
    [broken] = app.uploads
    arrived = broken.size_bytes
    await client.resume(source, "/push.csv")
    await until(lambda: events(app.bus, "completed", app.key))

    assert 0 < arrived < source.stat().st_size
    assert ids == await app.sent()


async def test_a_program_that_dies_and_ends_its_channel_in_order_has_broken_off(app: App) -> None:
    # `kill -9` of `sftp` alone: its `ssh` lives, and closes the channel as after a good session.
    await app.change(SETTLES, SLOWLY)
    client = OpenSsh(app.site)
    source, _ = app.file("push.csv", size=256 << 10)
    process = await client.start(*client.words, *client.slowly, *client.batch(f"put {source} /push.csv"), client.target)

    await app.under_way()
    process.kill()
    await process.communicate()
    await app.change(SETTLES)
    await until(lambda: events(app.bus, "partial", app.key))

    assert [("push.csv", "open")] == [(upload.info.name, upload.state) for upload in app.uploads]


async def test_ctrl_c_closes_the_piece_and_the_piece_is_refused(app: App) -> None:
    await app.change(SETTLES, SLOWLY)
    client = OpenSsh(app.site)
    source, _ = app.file("push.csv", size=256 << 10)
    master, slave = pty.openpty()
    # The shell opens the terminal, so that it is the terminal of the session and Ctrl-C reaches who runs in it.
    line = f'exec "$@" <{os.ttyname(slave)}'
    process = await client.start("sh", "-c", line, "sh", *client.words, *client.slowly, client.target)
    ended = asyncio.create_task(process.communicate())
    os.write(master, f"put {source} /push.csv\n".encode())

    await app.under_way()
    os.write(master, b"\x03")
    await app.change(SETTLES)
    [failed] = await _failed(app)
    os.write(master, b"bye\n")
    await ended
    os.close(master)
    os.close(slave)

    assert "truncated" == failed
    assert [] == await app.sent()
    assert {"push.csv.report.csv", "push.csv.result.json"} == set(app.told())


async def _failed(app: App) -> list[str | None]:
    await until(lambda: events(app.bus, "failed", app.key))
    return [event.reason for event in await events(app.bus, "failed", app.key)]


async def test_what_is_not_allowed_fails_a_batch_of_sftp(app: App) -> None:
    await app.change(WAITS)
    client = OpenSsh(app.site)
    source, _ = app.file("push.csv")
    await client.upload(source, "/push.csv")

    for refused in ("symlink /push.csv /x", "ln /push.csv /x", "mkdir /x", f"put {source} /errors/x", "rmdir /Profile"):
        code, _ = await client.outcome(*client.words, *client.batch(refused), client.target)
        assert code == 1


async def test_sftp_sets_times_syncs_and_downloads(app: App) -> None:
    await app.change(WAITS)
    client = OpenSsh(app.site)
    source, _ = app.file("push.csv", size=100_000)
    back = app.site.scratch / "back.csv"

    await client.do(f"put -p {source} /push.csv", f"put -f {source} /b.csv.tmp", f"get -p /push.csv {back}")

    assert source.read_bytes() == back.read_bytes()


async def test_scp_of_old_is_refused(app: App) -> None:
    client = Scp(app.site)
    source, _ = app.file("push.csv")

    code, said = await client.outcome(*client.words, "-O", str(source), client.target("/push.csv"))

    assert code != 0, said
    assert [] == app.uploads


async def test_lftp_mirrors_a_folder(app: App) -> None:
    folder = app.site.scratch / "out"
    folder.mkdir()
    every = []
    for number in range(5):
        _, ids = app.file(f"out/push{number}.csv", first=1 + 10 * number)
        every += ids

    await Lftp(app.site).do(f"mirror -R {folder} /")
    await until(lambda: _completed(app, 5))

    assert sorted(every) == sorted(await app.sent())


@pytest.mark.parametrize("program", [Rclone, NewRclone])
async def test_rclone_copies_a_folder_and_finds_it_equal(app: App, program: type[Rclone]) -> None:
    await app.change(WAITS)
    client = program(app.site)
    folder = app.site.scratch / "out"
    folder.mkdir()
    for number in range(5):
        app.file(f"out/push{number}.csv.part", size=50_000 * number)

    await client.run(*client.words, "copy", str(folder), ":sftp:/")
    await client.run(*client.words, "check", "--download", "--one-way", str(folder), ":sftp:/")

    assert 5 == len(app.uploads)


async def test_paramiko_replaces_a_waiting_file(app: App) -> None:
    await app.change(WAITS)
    client = Paramiko(app.site)
    first, _ = app.file("first.csv")
    second, _ = app.file("second.csv", first=10)

    await client.upload(first, "/push.csv.part")
    await client.upload(second, "/next.csv.part")
    await client.rename("/next.csv.part", "/push.csv.part")

    assert second.read_bytes() == app.bytes_of("push.csv.part")
    assert 1 == len(app.uploads)


async def _completed(app: App, number: int) -> bool:
    return number == len(await events(app.bus, "completed", app.key))
