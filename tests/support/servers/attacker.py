"""Servers of an attack on our own network: the attacker's, the one that must not be reached, and a company's proxy."""

import asyncio
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ATTACKER = "127.0.0.2"
"""The address that counts as one of the internet in these tests."""


def write_certificate(folder: Path, *names: str) -> Path:
    """Write a certificate for host names that is its own authority, and its key. Returns the file with both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    began = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(began - timedelta(days=1))
        .not_valid_after(began + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "certificate.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    return file


class RawServer:
    """
    An HTTP server that answers every request with the bytes `answer`, and closes. `heads` are the requests it got,
    `connections` their number or more.
    """

    def __init__(self, host: str = ATTACKER, certificate: Path | None = None) -> None:
        self.answer = b""
        self.heads: list[str] = []
        self.connections = 0
        self.port = 0
        self._host = host
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = re.search(r"content-length: *(\d+)", head.lower())
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(self.answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class CompanyProxy:
    """A proxy that leads every tunnel to one server. `asked` are the hosts, and `credentials` came with them."""

    def __init__(self, target: RawServer) -> None:
        self._target = target
        self._links: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        self.credentials: list[str] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://user:s%40cret@127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, host, _ = head.partition("\r\n")[0].split(" ")
        assert "CONNECT" == method
        self.asked.append(host)
        self.credentials += [line.split()[-1] for line in head.splitlines() if line.lower().startswith("proxy-auth")]
        there, back = await asyncio.open_connection(ATTACKER, self._target.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for source, sink in ((reader, back), (there, writer)):
            link = asyncio.create_task(_pass(source, sink))
            self._links.add(link)
            link.add_done_callback(self._links.discard)


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(1 << 16):
            sink.write(piece)
    except ConnectionError:
        pass
    finally:
        sink.close()
