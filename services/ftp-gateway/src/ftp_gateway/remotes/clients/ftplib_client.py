"""
The standard library's FTPS client, adapted to servers that are not trusted.

Implementation: a subclass of `ftplib.FTP_TLS`. It works on a socket that we open, resumes the control channel's TLS
    session on data channels, bounds the length of an answer, and translates failures to `MillraceError`.
Considerations: the names of ftplib that its documentation does not have stand in `USED_NAMES` and `USED_CALLS`.
    `check_internals` compares them with the library when the service starts.
"""

import ftplib
import hashlib
import platform
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from ftp_gateway.remotes.remote import Remote, UnknownHostError
from shared.errors import CredentialsError, DeniedError, InvalidError, MillraceError, NotFoundError, UnavailableError

ANSWER_S = 30.0
"""Time limit of one answer, or of one block."""
MAX_ANSWER_LINES = 200
"""Lines of one answer; greetings and `FEAT` are the long ones."""


USED_NAMES = (
    "af",
    "context",
    "encoding",
    "file",
    "getline",
    "getmultiline",
    "getresp",
    "host",
    "maxline",
    "port",
    "sock",
    "trust_server_pasv_ipv4_address",
    "voidresp",
    "welcome",
)
"""Undocumented names of `ftplib.FTP_TLS` that `FtpsClient` and `FtpsRemote` read, set, call or replace."""
USED_CALLS = {
    "close": ("file", "sock"),
    "getline": ("file", "maxline"),
    "getresp": ("getmultiline",),
    "makepasv": ("af", "sock", "trust_server_pasv_ipv4_address"),
    "retrlines": ("transfercmd",),
    "sendcmd": ("getresp",),
    "transfercmd": ("ntransfercmd",),
    "voidcmd": ("voidresp",),
    "voidresp": ("getresp",),
}
"""Methods of `ftplib.FTP` and the names that each has to use, or what we set or replace has no effect."""


def check_internals(library: type[ftplib.FTP_TLS] = ftplib.FTP_TLS) -> None:
    """
    Check that ftplib has and uses every name on which `FtpsClient` builds. Its release is that of Python.

    Raises:
        UnavailableError: One is not there; the message names library, version and names.
    """
    client = library(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    # `connect` sets the attribute `af`; before that only the code of `makepasv` tells that it is used.
    missing = [name for name in USED_NAMES if name != "af" and not hasattr(client, name)]
    for method, names in USED_CALLS.items():
        code = getattr(getattr(library, method, None), "__code__", None)
        used = code.co_names if code is not None else ()
        missing += [f"{name} in {method}" for name in names if name not in used]
    if missing:
        raise UnavailableError(
            f"ftplib of Python {platform.python_version()} has moved what Millrace uses of its internals: "
            f"{', '.join(missing)}. Run ftp-gateway with an earlier Python"
        )


class FtpsClient(ftplib.FTP_TLS):
    """`ftplib` on a socket of ours, with data channels that resume the TLS session of the control channel."""

    def __init__(self, remote: Remote, authorities: str | None) -> None:
        # It trusts nobody yet: to read the authorities takes 30 ms, so `begin` does it in the session's thread.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(context=context, timeout=ANSWER_S, encoding="latin-1")
        self._remote = remote
        self._authorities = authorities
        self._data: ssl.SSLSocket | None = None

    def begin(self, sock: socket.socket) -> None:
        """Start TLS at once or after the greeting, and check the certificate. Nothing secret has been sent by then."""
        self.context = tls_context(self._remote, self._authorities)
        self.host, self.port = self._remote.at
        self.af = sock.family
        if self._remote.tls == "implicit":
            sock = self._secured(sock, None)
        self._use(sock)
        self.welcome = self.getresp()
        if self._remote.tls == "explicit":
            self.voidcmd("AUTH TLS")
            self._use(self._secured(sock, None))

    def enter(self, password: str) -> None:
        """Sign in, and secure data channels too. The server's answer is not repeated: it may hold the password."""
        try:
            answer = self.sendcmd(f"USER {to_wire(self._remote.username)}")
            if answer.startswith("3"):
                answer = self.sendcmd(f"PASS {to_wire(password)}")
        except ftplib.error_perm as error:
            answer = str(error)
        except ftplib.Error:
            raise UnavailableError("the server lets nobody in now") from None
        if not answer.startswith("2"):
            raise CredentialsError(f"the server does not take the username with this password: {answer[:3]}")
        self.prot_p()

    def getmultiline(self) -> str:
        """Read an answer of at most `MAX_ANSWER_LINES`; ftplib's own has no limit."""
        lines = [self.getline()]
        code = lines[0][:3]
        while (len(lines) == 1 and lines[0][3:4] == "-") or (len(lines) > 1 and not _ends(lines[-1], code)):
            if len(lines) == MAX_ANSWER_LINES:
                raise ftplib.error_proto("the answer has no end")
            lines.append(self.getline())
        return "\n".join(lines)

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        try:
            assert isinstance(self.sock, ssl.SSLSocket)
            self._data = self._secured(connection, self.sock.session)
        except BaseException:
            connection.close()
            raise
        return self._data, size

    def close(self) -> None:
        """Close the data channel too: a caller that was cancelled never got it."""
        if self._data is not None:
            self._data.close()
        super().close()

    def _secured(self, sock: socket.socket, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        secured = self.context.wrap_socket(sock, server_hostname=self.host, session=session)
        pin = self._remote.certificate_sha256
        if pin is not None:
            found = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
            if found != pin:
                secured.close()
                raise UnknownHostError(f"the server's certificate has the SHA-256 {found}, and not the accepted one")
        return secured

    def _use(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("r", encoding=self.encoding)


def tls_context(remote: Remote, authorities: str | None = None) -> ssl.SSLContext:
    """
    Return the TLS settings of a remote. They trust its own `ca_certificates`, or else `authorities`, or the usual ones.

    Raises:
        InvalidError: `ca_certificates` are not PEM.
    """
    context = ssl.create_default_context(cadata=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if remote.max_tls == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if remote.ca_certificates is not None:
        context = _trusting(context, remote.ca_certificates)
    if remote.certificate_sha256 is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _trusting(usual: ssl.SSLContext, authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = usual.minimum_version, usual.maximum_version
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        raise InvalidError("expected certificates in PEM", field="ca_certificates") from None
    return context


def _ends(line: str, code: str) -> bool:
    """Return whether a line ends an answer of several (RFC 959, 4.2)."""
    return line[:3] == code and line[3:4] != "-"


def to_wire(text: str) -> str:
    """Return a name for `ftplib` to send. It encodes as Latin-1, because names on a server may be any bytes."""
    return text.encode().decode("latin-1")


def from_wire(text: str) -> str:
    """Return a name that `ftplib` has received."""
    return text.encode("latin-1").decode(errors="replace")


@contextmanager
def translated() -> Iterator[None]:
    """Translate the library's failures. The server's text is cut to 200 characters: it is not trusted."""
    try:
        yield
    except MillraceError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise UnknownHostError(f"the server's certificate is not trusted: {error.verify_message}") from None
    except ftplib.error_perm as error:
        raise _refusal(str(error)[:200]) from None
    except (ftplib.Error, EOFError) as error:
        raise UnavailableError(f"the server failed: {str(error)[:200] or 'it closed the connection'}") from None
    except TimeoutError:
        raise UnavailableError(f"the server did not answer within {ANSWER_S:g} s") from None
    except OSError as error:
        raise UnavailableError(f"the connection failed: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise UnavailableError("the server's answer is no FTP") from None


def _refusal(answer: str) -> MillraceError:
    match answer[:3]:
        case "530":
            return CredentialsError("the server wants another sign-in")
        case "550":
            return NotFoundError(f"the server has no such file or directory, or does not allow it: {answer}")
        case _:
            return DeniedError(f"the server refuses: {answer}")
