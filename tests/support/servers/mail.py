"""A mail server on loopback that keeps the mails it receives. No test lives here."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from support.servers.remotes import self_signed

USER, PASSWORD = "millrace", "correct-horse-battery"


class MailServer:
    """`mails` are the received ones in order. `answer` is the reply to each; `refused` are unknown recipients."""

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[EmailMessage] = []
        self.tries = 0
        self.answer = "250 taken"
        self.refused: set[str] = set()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 nobody of this name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.tries += 1
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            self.mails.append(message)
        return self.answer


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that signs itself, and a server's context with it."""
    file = folder / "mail.pem"
    file.write_bytes(self_signed())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return file, context


@asynccontextmanager
async def mail_server(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[MailServer]:
    """Run a mail server. With `tls` it requires STARTTLS, `USER` and `PASSWORD`."""
    server = MailServer()

    def check(smtp: Any, session: Any, envelope: Any, mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        known = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        # An answer that is not `handled` is given by aiosmtpd.
        return AuthResult(success=known, handled=False)

    options: dict[str, Any] = {}
    if tls is not None:
        options = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": check}
    listener = await asyncio.get_running_loop().create_server(
        lambda: SMTP(server, hostname="mail.test", enable_SMTPUTF8=True, **options), "127.0.0.1", 0
    )
    async with listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server
