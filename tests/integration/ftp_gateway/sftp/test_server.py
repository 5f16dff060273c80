"""The SFTP server against real clients and hostile ones: paths, folders, handles, packets, sign-in."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import paramiko
import pytest
from asyncssh.constants import FXF_READ

from ftp_gateway.access.quotas import Quotas
from ftp_gateway.app import SERVICE
from ftp_gateway.sftp.authentication import MAX_TRIES
from ftp_gateway.sftp.packets import MAX_BLOCK_BYTES, MAX_PACKET_BYTES
from ftp_gateway.spool.store import Spool
from support.clients.ftp_gateway import PASSWORD, ROW, Gateway, read, write
from support.run_service import RunService

LONG_SETTLE: dict[str, object] = {"settle_s": 600}


@pytest.fixture
def app_config() -> dict[str, object]:
    return LONG_SETTLE


@pytest.fixture
def spool(gateway: Gateway) -> Spool:
    """The spool with the uploads. Files settle for so long that a test sees them there, unless they are renamed."""
    found: Spool = gateway.running.state.spool
    return found


TRICKS: list[bytes] = [
    b"//etc/passwd",
    b"/../../etc/passwd",
    b"../../../etc/passwd",
    b"/Profile/../../etc/passwd",
    b"/./../etc/passwd",
    b"/etc/passwd",
    b"/proc/self/environ",
    b"/Profile/sub/x.txt",
    b"/push.csv/x",
    b"/errors/../../../etc/passwd",
    b"..\\..\\etc\\passwd",
    b"/a\\b.csv",
    b"/a\nb.csv",
    b"/a\x00b.csv",
    b"/a\x7fb.csv",
    b"/\xc2\x85.csv",
    b"/\xe2\x80\xa8.csv",
    b"/\xff\xfe.csv",
    b"/" + "ğ".encode() * 125,
    b"/" + b"x" * 201,
    b"/" + b"x/" * 3000,
]


async def test_no_path_leaves_the_tree(gateway: Gateway, spool: Spool) -> None:
    async with gateway.sftp() as client:
        for path in TRICKS:
            for attempt in (client.open(path, "rb"), client.open(path, "wb"), client.stat(path), client.listdir(path)):
                with pytest.raises((asyncssh.SFTPNoSuchFile, asyncssh.SFTPBadMessage)):
                    await attempt

    assert spool.uploads() == []


async def test_a_rename_goes_into_no_other_folder_and_no_other_app(gateway: Gateway, spool: Spool) -> None:
    tricks = (b"//etc/x", b"/../../etc/x", b"/errors/x", b"/reports/x", b"/Profile", b"/", b"/Profile/sub/x", b"/x\x00")
    async with gateway.sftp() as client:
        await write(client, "/a.csv.part")
        for path in tricks:
            for rename in (client.rename, client.posix_rename):
                for old, new in ((b"/a.csv.part", path), (path, b"/b.csv.part")):
                    with pytest.raises(
                        (asyncssh.SFTPNoSuchFile, asyncssh.SFTPBadMessage, asyncssh.SFTPPermissionDenied)
                    ):
                        await rename(old, new)

    assert ["a.csv.part"] == [upload.info.name for upload in spool.uploads()]


async def test_an_app_does_not_see_one_whose_name_begins_as_its_own(gateway: Gateway, spool: Spool) -> None:
    for app_key in ("app1", "app10"):
        await gateway.put(f"/v1/apps/{app_key}", LONG_SETTLE)
        await gateway.user(app_key=app_key)
    async with gateway.sftp("app10.nightly") as client:
        await write(client, "/a.csv", b"of app10")

    async with gateway.sftp("app1.nightly") as client:
        for path in ("/a.csv", "0/a.csv", "../app10/a.csv", "/app10/a.csv", "/../app1/../app10/a.csv", "..0/a.csv"):
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await client.open(path, "rb")
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await client.remove(path)
        await write(client, "/a.csv", b"of app1")

    assert {"app1": 7, "app10": 8} == {upload.info.app_key: upload.size_bytes for upload in spool.uploads()}


async def test_dots_climb_to_the_root_and_no_further(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        assert await client.realpath("/Profile/../../../x.csv") == "/x.csv"
        assert await client.realpath(".") == "/"
        assert await client.realpath("//Profile//") == "/Profile"


async def test_links_are_refused_and_a_rename_after_them_gives_nothing(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await write(client, "/a.csv")
        for attempt in (
            client.symlink("/etc", "/link.csv"),
            client.link("/a.csv", "/link.csv"),
            client.readlink("/a.csv"),
        ):
            with pytest.raises(asyncssh.SFTPOpUnsupported):
                await attempt
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await client.rename("/link.csv", "/Profile/link.txt")


async def test_a_link_planted_in_the_spool_is_not_followed(gateway: Gateway, spool: Spool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not for customers")

    async with gateway.sftp() as client:
        await write(client, "/a.csv")
        [upload] = spool.uploads()
        [data] = (tmp_path / "data" / "ftp" / "spool").glob("*/files/*.data")
        data.unlink()
        data.symlink_to(secret)
        for mode in ("rb", "ab", "r+b"):
            with pytest.raises(asyncssh.SFTPFailure):
                await client.open("/a.csv", mode)

    assert upload.id == data.stem
    assert "not for customers" == secret.read_text()


@pytest.mark.parametrize("folder", ["errors", "reports"])
async def test_our_folders_are_read_only(gateway: Gateway, folder: str) -> None:
    async with gateway.sftp() as client:
        await write(client, "/a.csv")
        for attempt in (
            client.open(f"/{folder}/a.csv", "wb"),
            client.rename("/a.csv", f"/{folder}/a.csv"),
            client.remove(f"/{folder}/a.csv"),
            client.mkdir(f"/{folder}/sub"),
            client.rmdir(f"/{folder}"),
        ):
            with pytest.raises((asyncssh.SFTPPermissionDenied, asyncssh.SFTPNoSuchFile)):
                await attempt
        assert {".", ".."} == set(await client.listdir(f"/{folder}"))


async def test_folders_are_fixed(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await client.mkdir("/new")
        with pytest.raises(asyncssh.SFTPFailure):
            await client.mkdir("/Profile")
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await client.remove("/Profile")


async def test_a_file_grows_by_append_and_is_read_back(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await write(client, "/a.csv", b"one ")
        async with client.open("/a.csv", "ab") as file:
            await file.write(b"two")
        assert await read(client, "/a.csv") == b"one two"
        assert (await client.stat("/a.csv")).size == 7


async def test_a_rename_replaces_a_waiting_file_only_where_that_is_requested(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await write(client, "/a.csv.part", b"new")
        await write(client, "/b.csv.part", b"old")
        with pytest.raises(asyncssh.SFTPFailure):
            await client.rename("/a.csv.part", "/b.csv.part")
        await client.posix_rename("/a.csv.part", "/b.csv.part")
        assert await read(client, "/b.csv.part") == b"new"


async def test_setstat_is_accepted_and_ignored_also_for_a_missing_file(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await write(client, "/a.csv")
        await client.chmod("/a.csv", 0o777)
        await client.utime("/gone.csv", (1.0, 1.0))
        assert ((await client.stat("/a.csv")).permissions or 0) & 0o777 == 0o640


async def test_a_size_is_set_by_the_writer_of_the_file_alone(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        async with client.open("/a.csv", "wb") as file:
            await file.write(b"hello")
            await client.truncate("/a.csv", 3)
        assert await read(client, "/a.csv") == b"hel"

        await client.truncate("/a.csv", 3)
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await client.truncate("/a.csv", 1)
        assert await read(client, "/a.csv") == b"hel"


async def test_a_write_far_beyond_the_limit_is_refused_and_leaves_a_part(gateway: Gateway, spool: Spool) -> None:
    async with gateway.sftp() as client:
        file = await client.open("/a.csv", "wb")
        for offset in (1 << 40, 1 << 62):
            with pytest.raises(asyncssh.SFTPFailure):
                await file.write(b"x", offset)
        with pytest.raises(asyncssh.SFTPFailure, match="a write has failed"):
            await file.close()

    [upload] = spool.uploads()
    assert (0, True) == (upload.size_bytes, upload.interrupted)


async def test_a_read_of_any_size_returns_a_block_and_one_beyond_the_end_returns_nothing(gateway: Gateway) -> None:
    async with gateway.connect() as connection, connection.start_sftp_client() as client:
        await write(client, "/a.csv", b"x" * (MAX_BLOCK_BYTES + 10))
        handler = client._handler
        handle = await handler.open(b"/a.csv", FXF_READ, asyncssh.SFTPAttrs())
        data, _ = await handler.read(handle, 0, 0xFFFFFFFF)
        assert len(data) == MAX_BLOCK_BYTES
        for offset in (1 << 40, (1 << 64) - 1):
            with pytest.raises(asyncssh.SFTPEOFError):
                await handler.read(handle, offset, 10)


async def test_handles_are_limited_and_others_are_served(gateway: Gateway) -> None:
    async with gateway.sftp() as client, gateway.sftp() as other:
        files = [await client.open(f"/{number}.csv.part", "wb") for number in range(Quotas().open_handles)]
        with pytest.raises(asyncssh.SFTPFailure):
            await client.open("/more.csv", "wb")
        await write(other, "/other.csv")
        for file in files:
            await file.close()
        await write(client, "/more.csv")


async def test_a_block_with_bytes_behind_its_data_is_written_as_rclone_sends_it(gateway: Gateway) -> None:
    def send() -> bytes:
        with gateway.paramiko() as client:
            file = client.open("/a.csv", "wb")
            handle = file.handle
            send_packet = client._request  # type: ignore[attr-defined]  # private, and the only way to such a packet
            send_packet(paramiko.sftp.CMD_WRITE, handle, paramiko.sftp.int64(0), ROW, b"x" * 50)
            file.close()
            with client.open("/a.csv", "rb") as again:
                return again.read()

    assert ROW == await asyncio.to_thread(send)


async def test_a_packet_that_is_too_long_ends_its_session_alone(gateway: Gateway) -> None:
    async with gateway.connect() as connection, gateway.sftp() as other:
        writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
        writer.write(b"\0\0\0\x05\x01\0\0\0\x03")
        await reader.readexactly(4)
        writer.write(b"\xf0\0\0\0" + b"x" * (MAX_PACKET_BYTES // 4))
        async with asyncio.timeout(5):
            while await reader.read(4096):
                pass
        await write(other, "/a.csv")


async def test_a_connection_has_one_session_and_nothing_but_sftp(gateway: Gateway) -> None:
    async with gateway.connect() as connection, connection.start_sftp_client():
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()
    for options in ({"command": "id"}, {}, {"subsystem": "shell"}):
        async with gateway.connect() as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process(**options)
    async with gateway.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", gateway.port)


async def test_a_wrong_password_is_refused_for_any_login(gateway: Gateway) -> None:
    for login in ("shop.nightly", "shop.nobody", "nobody.nightly", "shop", "../x", "shop.nightly.x"):
        with pytest.raises(asyncssh.PermissionDenied):
            async with gateway.connect(login, password="wrong-password"):
                pass


async def test_a_connection_is_closed_after_six_wrong_passwords(gateway: Gateway) -> None:
    tried = 0

    class Guesser(asyncssh.SSHClient):
        def password_auth_requested(self) -> str:
            nonlocal tried
            tried += 1
            return f"guess-{tried}"

    with pytest.raises(asyncssh.PermissionDenied, match="Too many"):
        async with gateway.connect(password=None, client_factory=Guesser, preferred_auth="password"):
            pass
    assert MAX_TRIES + 1 == tried


async def test_an_address_that_is_not_allowed_is_refused_with_the_right_password(gateway: Gateway) -> None:
    await gateway.user("away", password=PASSWORD, allowed_ips=["203.0.113.0/24", "2001:db8::/32"])
    await gateway.user("here", password=PASSWORD, allowed_ips=["127.0.0.0/8"])

    with pytest.raises(asyncssh.PermissionDenied):
        async with gateway.connect("shop.away"):
            pass
    async with gateway.sftp("shop.here") as client:
        assert await client.exists("/Profile")


async def test_a_disabled_user_is_refused(gateway: Gateway) -> None:
    await gateway.user("late", password=PASSWORD, disabled=True)

    with pytest.raises(asyncssh.PermissionDenied):
        async with gateway.connect("shop.late"):
            pass


async def test_a_public_key_signs_in_and_another_does_not(gateway: Gateway) -> None:
    key, other = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    await gateway.user("keyed", public_keys=[key.export_public_key().decode()])

    async with gateway.connect("shop.keyed", password=None, client_keys=[key]) as connection:
        assert connection.get_extra_info("username") == "shop.keyed"
    with pytest.raises(asyncssh.PermissionDenied):
        async with gateway.connect("shop.keyed", password=None, client_keys=[other]):
            pass


async def test_old_algorithms_are_not_offered(gateway: Gateway) -> None:
    old: tuple[dict[str, Any], ...] = (
        {"kex_algs": ["diffie-hellman-group14-sha1"]},
        {"encryption_algs": ["aes128-cbc"]},
        {"mac_algs": ["hmac-sha1"], "encryption_algs": ["aes128-ctr"]},
    )
    for options in old:
        with pytest.raises(asyncssh.KeyExchangeFailed):
            async with gateway.connect(**options):
                pass


async def test_host_key_and_files_survive_a_restart(run_service: RunService, http: aiohttp.ClientSession) -> None:
    fingerprints = set()
    for attempt in range(2):
        async with run_service(SERVICE) as running:
            gateway = Gateway(running, http)
            if attempt == 0:
                await gateway.put("/v1/apps/shop", LONG_SETTLE)
                await gateway.user()
            async with gateway.connect() as connection, connection.start_sftp_client() as client:
                key = connection.get_server_host_key()
                assert key is not None
                fingerprints.add(key.get_fingerprint())
                if attempt == 0:
                    await write(client, "/a.csv.part")
                assert await client.getsize("/a.csv.part") == len(ROW)
    assert len(fingerprints) == 1
