"""One suite for every protocol of a customer's own server: the steps of a session, and its failures."""

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import pytest

from ftp_gateway.remotes.clients.ftps import check_certificates, identify_ftps, open_ftps_remote
from ftp_gateway.remotes.clients.sftp import identify_sftp, open_sftp_remote
from ftp_gateway.remotes.clients.sftp_keys import check_keys
from ftp_gateway.remotes.pull import RemoteServer
from ftp_gateway.remotes.remote import Remote, UnknownHostError
from shared.config.secret import Secret, dec_hook
from shared.errors import (
    CredentialsError,
    DeniedError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from support.outgoing import open_outgoing
from support.servers.remotes import FtpsPeer, Peer, SftpPeer, ftps_peer, self_signed, sftp_peer

BIG = os.urandom(3_000_001)


@pytest.fixture(params=["sftp", "ftps", "ftps-implicit", "ftps-old"])
async def peer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Peer]:
    folder = tmp_path / "peer"
    if request.param == "sftp":
        async with sftp_peer(folder) as sftp:
            yield sftp
    else:
        async with ftps_peer(folder, implicit=request.param == "ftps-implicit") as ftps:
            ftps.lists = request.param != "ftps-old"
            yield ftps


def remote_of(peer: Peer, **changed: Any) -> Remote:
    return msgspec.convert(peer.config(**changed), Remote, dec_hook=dec_hook)


def opened(remote: Remote, *, allow_private: bool = True) -> AbstractAsyncContextManager[RemoteServer]:
    opening = open_sftp_remote if remote.protocol == "sftp" else open_ftps_remote
    return opening(remote, open_outgoing(allow_private_endpoints=allow_private))


async def identified(remote: Remote) -> str:
    return await (identify_sftp if remote.protocol == "sftp" else identify_ftps)(remote, open_outgoing())


async def content(server: RemoteServer, path: str, size_bytes: int) -> bytes:
    async with aclosing(server.read(path, size_bytes)) as blocks:
        return b"".join([block async for block in blocks])


async def test_a_directory_is_listed_with_sizes_and_times_that_change_with_the_files(peer: Peer) -> None:
    (peer.folder / "out" / "şehir 1.csv").write_bytes(b"1;a;\n")
    (peer.folder / "out" / "archive").mkdir()

    async with opened(remote_of(peer)) as server:
        before = [file for file in await server.list_files("/out", 10) if file.regular]
        os.utime(peer.folder / "out" / "şehir 1.csv", (1, 1_700_000_000))
        after = await server.stat("/out/şehir 1.csv")

    assert [("şehir 1.csv", 5)] == [(file.name, file.size_bytes) for file in before]
    assert after is not None
    assert after.regular
    assert before[0].version != after.version


async def test_a_directory_that_is_too_full_or_missing_is_reported(peer: Peer) -> None:
    for number in range(4):
        (peer.folder / "out" / f"{number}.csv").touch()

    async with opened(remote_of(peer)) as server:
        with pytest.raises(TooLargeError):
            await server.list_files("/out", 3)
    async with opened(remote_of(peer)) as server:
        with pytest.raises(NotFoundError):
            await server.list_files("/nowhere", 3)
        assert await server.stat("/out/nothing.csv") is None


async def test_a_file_comes_byte_for_byte_and_goes_byte_for_byte(peer: Peer) -> None:
    (peer.folder / "out" / "big.csv").write_bytes(BIG)

    async with opened(remote_of(peer)) as server:
        assert await content(server, "/out/big.csv", len(BIG)) == BIG
        await server.make_directory("/reports")
        await server.make_directory("/reports")
        await server.write("/reports/big.part", BIG)
        await server.rename("/reports/big.part", "/reports/big.csv")
        await server.remove("/out/big.csv")

    assert (peer.folder / "reports" / "big.csv").read_bytes() == BIG
    assert list((peer.folder / "out").iterdir()) == []


async def test_a_file_that_is_served_in_part_or_grew_does_not_pass_for_whole(peer: Peer) -> None:
    (peer.folder / "out" / "cut.csv").write_bytes(BIG)
    (peer.folder / "out" / "next.csv").write_bytes(b"1;a;\n")
    peer.cut["cut.csv"] = 1_000_000

    async with opened(remote_of(peer)) as server:
        cut = await content(server, "/out/cut.csv", len(BIG))
        whole = await content(server, "/out/next.csv", 5)
        async with aclosing(server.read("/out/next.csv", 4)) as blocks:
            grown = (
                sum([len(block) async for block in blocks]) if isinstance(peer, SftpPeer) else len(await anext(blocks))
            )

    assert cut == BIG[:1_000_000]
    assert whole == b"1;a;\n"
    assert grown > 4


async def test_a_download_that_was_left_leaves_no_answer_for_another(peer: Peer) -> None:
    (peer.folder / "out" / "big.csv").write_bytes(BIG)

    async with opened(remote_of(peer)) as server:
        async with aclosing(server.read("/out/big.csv", len(BIG))) as blocks:
            await anext(blocks)
        with contextlib.suppress(UnavailableError):
            assert await content(server, "/out/big.csv", len(BIG)) == BIG


async def test_a_wrong_password_is_a_matter_of_credentials_and_does_not_show(peer: Peer) -> None:
    with pytest.raises(CredentialsError) as refused:
        async with opened(remote_of(peer, password="not-this-one")):
            pass

    assert {"not-this-one"} == set(peer.logins)
    assert "not-this-one" not in str(refused.value)


async def test_an_unreachable_or_internal_server_is_reported(peer: Peer, unused_tcp_port: int) -> None:
    with pytest.raises(UnavailableError):
        async with opened(remote_of(peer, port=unused_tcp_port)):
            pass
    with pytest.raises(DeniedError, match="internet"):
        async with opened(remote_of(peer), allow_private=False):
            pass
    with pytest.raises(InvalidError, match="internet"):
        remote_of(peer).check(allow_private=False)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("500 PASS correct-horse-battery is no command", CredentialsError),
        ("421 correct-horse-battery and everybody else: come later", UnavailableError),
        ("correct-horse-battery?", UnavailableError),
        ("230-welcome" + "\r\n230-again" * 300, UnavailableError),
    ],
    ids=["refused", "later", "no FTP", "no end"],
)
async def test_what_an_ftp_server_says_is_bounded_and_no_password(
    ftps: FtpsPeer, answer: str, expected: type[Exception]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ftps.certificate)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in ("220 hello", "331 and?", answer):
            writer.write(f"{line}\r\n".encode())
            await reader.readline()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(expected) as refused:
            async with opened(remote_of(ftps, port=port, tls="implicit")):
                pass

    assert "correct-horse" not in str(refused.value)


async def test_a_server_that_speaks_another_protocol_is_unavailable(peer: Peer) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff\x00 what?\r\n" * 100)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(UnavailableError):
            async with opened(remote_of(peer, port=port)):
                pass


async def test_an_unknown_server_gets_no_password(peer: Peer) -> None:
    if isinstance(peer, SftpPeer):
        peer_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        wrong: dict[str, Any] = {"host_key": peer_key}
    else:
        wrong = {"ca_certificates": self_signed().decode().partition("-----BEGIN EC")[0]}

    for changed in (wrong, {"host_key": None} if isinstance(peer, SftpPeer) else {"ca_certificates": None}):
        with pytest.raises(UnknownHostError):
            async with opened(remote_of(peer, **changed)):
                pass
        with pytest.raises(UnknownHostError):
            await identified(remote_of(peer, **changed))

    assert peer.logins == []


async def test_a_known_server_shows_its_fingerprint(peer: Peer) -> None:
    assert "SHA" in await identified(remote_of(peer))
    assert peer.logins == []


@pytest.fixture
async def sftp(tmp_path: Path) -> AsyncIterator[SftpPeer]:
    async with sftp_peer(tmp_path / "peer") as peer:
        yield peer


@pytest.fixture
async def ftps(tmp_path: Path) -> AsyncIterator[FtpsPeer]:
    async with ftps_peer(tmp_path / "peer") as peer:
        yield peer


async def test_links_are_shown_as_what_they_are(sftp: SftpPeer) -> None:
    (sftp.folder / "secret.csv").write_bytes(b"1;a;\n")
    (sftp.folder / "out" / "link.csv").symlink_to("../secret.csv")

    async with opened(remote_of(sftp)) as server:
        [listed] = await server.list_files("/out", 10)
        looked = await server.stat("/out/link.csv")

    assert not listed.regular
    assert looked is not None
    assert not looked.regular


async def test_a_private_key_with_a_passphrase_signs_in(sftp: SftpPeer) -> None:
    key = sftp.client_key.export_private_key("openssh", "open sesame", rounds=50).decode()
    remote = remote_of(sftp, password=None, private_key=key, passphrase="open sesame")

    check_keys(remote)
    async with opened(remote) as server:
        assert await server.list_files("/out", 10) == []
    with pytest.raises(InvalidError) as refused:
        check_keys(msgspec.structs.replace(remote, passphrase=Secret("open barley")))
    assert refused.value.field in {"passphrase", "private_key"}
    slow = sftp.client_key.export_private_key("openssh", "x", rounds=129).decode()
    with pytest.raises(InvalidError, match="rounds"):
        check_keys(remote_of(sftp, password=None, private_key=slow, passphrase="x"))


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp256"])
async def test_the_accepted_key_is_requested_where_a_server_has_several(sftp: SftpPeer, kind: str) -> None:
    await sftp.close()
    sftp.key = asyncssh.generate_private_key(kind)
    await sftp.listen()

    async with opened(remote_of(sftp)) as server:
        assert await server.list_files("/out", 10) == []


@pytest.mark.parametrize("max_tls", ["1.2", "1.3"])
async def test_data_channels_resume_the_session_with_each_tls(ftps: FtpsPeer, max_tls: str) -> None:
    (ftps.folder / "out" / "a.csv").write_bytes(b"1;a;\n")

    async with opened(remote_of(ftps, max_tls=max_tls)) as server:
        await server.list_files("/out", 10)
        for _ in range(3):
            assert b"1;a;\n" == await content(server, "/out/a.csv", 5)
    assert f"TLSv{max_tls}" in await identified(remote_of(ftps, max_tls=max_tls))

    assert ftps.reused == [True] * 4


async def test_a_certificate_is_known_by_its_digest_alone(ftps: FtpsPeer) -> None:
    pem = ftps.config()["ca_certificates"]
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    async with opened(remote_of(ftps, ca_certificates=None, certificate_sha256=digest)) as server:
        assert await server.list_files("/out", 10) == []
    with pytest.raises(UnknownHostError):
        await identified(remote_of(ftps, ca_certificates=None, certificate_sha256="0" * 64))
    with pytest.raises(InvalidError, match="PEM"):
        check_certificates(remote_of(ftps, ca_certificates="none"))
