"""Servers of customers of the ftp gateway, SFTP and FTPS, on a folder of the test."""

import logging
import os
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

with warnings.catch_warnings():
    # The event loop of pyftpdlib imports a module that Python deprecates.
    warnings.simplefilter("ignore")
    from OpenSSL import SSL
    from pyftpdlib.authorizers import DummyAuthorizer  # type: ignore[import-untyped]
    from pyftpdlib.filesystems import AbstractedFS  # type: ignore[import-untyped]
    from pyftpdlib.handlers import TLS_DTPHandler, TLS_FTPHandler  # type: ignore[import-untyped]
    from pyftpdlib.ioloop import IOLoop  # type: ignore[import-untyped]
    from pyftpdlib.servers import FTPServer  # type: ignore[import-untyped]

USERNAME, PASSWORD = "millrace", "correct-horse-battery"


class Peer(Protocol):
    """A customer's server. `cut` limits the bytes that are served of a file, by its name; no error reports the rest."""

    folder: Path
    cut: dict[str, int]
    logins: list[str]

    def config(self, **changed: Any) -> dict[str, Any]:
        """Return the body of a `PUT` for this server, with its accepted key and its password."""
        ...


class SftpPeer:
    """asyncssh's server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cut: dict[str, int] = {}
        self.logins: list[str] = []
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self._acceptor: asyncssh.SSHAcceptor | None = None

    def config(self, **changed: Any) -> dict[str, Any]:
        fields = {
            "protocol": "sftp",
            "host": "127.0.0.1",
            "port": self.port,
            "username": USERNAME,
            "password": PASSWORD,
            "host_key": self.public_key,
            "path": "/out",
            "frequency_s": 1,
            "settle_s": 0,
        }
        return fields | changed

    @property
    def public_key(self) -> str:
        return " ".join(self.key.export_public_key().decode().split()[:2])

    async def listen(self) -> None:
        """Start to listen; after `close` on the same port again."""
        peer = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                peer.logins.append(password)
                return (username, password) == (USERNAME, PASSWORD)

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return key.public_data == peer.client_key.public_data

        class CutServer(asyncssh.SFTPServer):
            def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
                super().__init__(channel, chroot=os.fsencode(peer.folder))

            def read(self, file_obj: object, offset: int, size: int) -> bytes:
                assert hasattr(file_obj, "name")
                end = peer.cut.get(os.path.basename(os.fsdecode(file_obj.name)), offset + size)  # noqa: PTH119
                data = super().read(file_obj, offset, max(0, min(size, end - offset)))
                assert isinstance(data, bytes)
                return data

        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            config=None,
            server_factory=Server,
            server_host_keys=[self.key],
            sftp_factory=CutServer,
            encoding=None,
        )
        self.port = self._acceptor.get_port()

    def become_another(self) -> None:
        """Change the host key for the next connections, as if another server were at the address."""
        assert self._acceptor is not None
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self._acceptor.update(server_host_keys=[self.key])

    async def close(self) -> None:
        assert self._acceptor is not None
        self._acceptor.close()
        await self._acceptor.wait_closed()


class FtpsPeer:
    """pyftpdlib's server in a thread. Like vsftpd it requires data channels to resume the control channel's session."""

    def __init__(self, folder: Path, certificate: Path, *, implicit: bool = False) -> None:
        self.folder = folder
        self.cut: dict[str, int] = {}
        self.logins: list[str] = []
        self.reused: list[bool] = []
        self.certificate = certificate
        self.implicit = implicit
        self.lists = True
        """True if the server supports `MLSD` and `MLST`."""
        self.port = 0

    def config(self, **changed: Any) -> dict[str, Any]:
        fields = {
            "protocol": "ftps",
            "host": "127.0.0.1",
            "port": self.port,
            "username": USERNAME,
            "password": PASSWORD,
            "tls": "implicit" if self.implicit else "explicit",
            "ca_certificates": self.certificate.read_text().partition("-----BEGIN EC")[0],
            "path": "/out",
            "frequency_s": 1,
            "settle_s": 0,
        }
        return fields | changed

    @contextmanager
    def serving(self) -> Iterator[None]:
        loop = IOLoop()
        server = FTPServer(("127.0.0.1", 0), self._handler(), ioloop=loop)
        self.port = server.address[1]
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                loop.loop(timeout=0.01, blocking=False)

        thread = threading.Thread(target=serve, name="ftps peer")
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()
            server.close_all()
            loop.close()

    def _handler(self) -> type[TLS_FTPHandler]:
        peer = self
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(str(self.certificate))
        context.use_privatekey_file(str(self.certificate))
        context.set_session_id(b"peer")

        class CutFileSystem(AbstractedFS):  # type: ignore[misc]
            def open(self, filename: str, mode: str) -> Any:
                file = super().open(filename, mode)
                most = peer.cut.get(Path(filename).name)
                return file if most is None else _Cut(file, most)

        class Data(TLS_DTPHandler):  # type: ignore[misc]
            def handle_ssl_established(self) -> None:
                reused = bool(SSL._lib.SSL_session_reused(self.socket._ssl))  # type: ignore[attr-defined]
                peer.reused.append(reused)
                if not reused:
                    self.cmd_channel.respond("522 SSL connection failed: session reuse required")
                    self.close()

        authorizer = DummyAuthorizer()
        authorizer.add_user(USERNAME, PASSWORD, str(self.folder), perm="elradfmwMT")

        class Handler(TLS_FTPHandler):  # type: ignore[misc]
            ssl_context = context
            dtp_handler = Data
            abstracted_fs = CutFileSystem
            tls_control_required = True
            tls_data_required = True
            auth_failed_timeout = 0

            def handle(self) -> None:
                if peer.implicit:
                    self.secure_connection(self.ssl_context)
                super().handle()

            def ftp_PASS(self, line: str) -> None:
                peer.logins.append(line)
                super().ftp_PASS(line)

            def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
                if cmd in {"MLSD", "MLST"} and not peer.lists:
                    self.respond(f'500 Command "{cmd}" not understood.')
                else:
                    super().pre_process_command(line, cmd, arg)

        Handler.authorizer = authorizer
        return Handler


class _Cut:
    """A file that ends early."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._left = most

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@asynccontextmanager
async def sftp_peer(folder: Path) -> AsyncIterator[SftpPeer]:
    """Start a server, whose folder has the directory `out`."""
    (folder / "out").mkdir(parents=True)
    peer = SftpPeer(folder)
    await peer.listen()
    try:
        yield peer
    finally:
        await peer.close()


@asynccontextmanager
async def ftps_peer(folder: Path, *, implicit: bool = False) -> AsyncIterator[FtpsPeer]:
    """Start a server, whose folder has the directory `out`."""
    (folder / "out").mkdir(parents=True)
    logging.getLogger("pyftpdlib").setLevel(logging.ERROR)
    certificate = folder.with_suffix(".pem")
    certificate.write_bytes(self_signed())
    peer = FtpsPeer(folder, certificate, implicit=implicit)
    with peer.serving():
        yield peer


def self_signed() -> bytes:
    """Make a certificate for 127.0.0.1 and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
