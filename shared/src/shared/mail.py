"""
E-mail by SMTP: one message, handed to the mesh's mail server. Later delivery is not tracked.

Configuration: `MILLRACE_SMTP_*`. Without TLS there is no signing in, so that no password is sent in clear.
Implementation: the standard library's client, in a thread, with a new connection for each message: there are few.
"""

import asyncio
import smtplib
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from msgspec import Struct

from shared.errors import CredentialsError, DeniedError, InvalidError, MillraceError, UnavailableError
from shared.runtime.settings import Settings

TIMEOUT_S: Final = 10.0
"""Limit of each step. A stopping service waits for it."""


class Mail(Struct, frozen=True, kw_only=True):
    """A message of plain text. One that is sent again has the same `id`, which is unique below the sender's domain."""

    id: str
    to: tuple[str, ...]
    subject: str
    text: str
    at: datetime


class Mailer:
    """The mail server of the settings. `tls` trusts the authorities of the settings."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext) -> None:
        self._settings = settings
        self._tls = tls

    @property
    def configured(self) -> bool:
        """Return whether there is a mail server."""
        return bool(self._settings.smtp_host)

    async def send(self, mail: Mail) -> tuple[str, ...]:
        """
        Hand a message to the server.

        Returns:
            The recipients that the server refused; the others will have it.

        Raises:
            InvalidError: There is no server, or it does not support what the settings ask for.
            CredentialsError: It does not let us sign in.
            DeniedError: It refuses the message for good, for its sender or for all recipients.
            UnavailableError: It cannot be reached, or asks to try later.
        """
        if not self.configured:
            raise InvalidError("this mesh has no mail server", field="smtp_host")
        return await asyncio.to_thread(self._send, mail)

    def _send(self, mail: Mail) -> tuple[str, ...]:
        message = EmailMessage()
        message["From"] = self._settings.smtp_sender
        message["To"] = ", ".join(mail.to)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(mail.at)
        message["Message-ID"] = f"<{mail.id}@{self._settings.smtp_sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        try:
            with self._connected() as server:
                return tuple(server.send_message(message, self._settings.smtp_sender, mail.to))
        except (smtplib.SMTPException, OSError) as error:
            raise _translated(error) from None
        except UnicodeError:
            raise InvalidError("a user, password or address is not ASCII", field="smtp_user") from None

    def _connected(self) -> smtplib.SMTP:
        host, port, security = self._settings.smtp_host, self._settings.smtp_port, self._settings.smtp_security
        if security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=self._tls)
        else:
            server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
        try:
            if security == "starttls":
                server.starttls(context=self._tls)
            if self._settings.smtp_user:
                if security == "none":
                    raise InvalidError("signing in needs TLS", field="smtp_security")
                server.login(self._settings.smtp_user, self._settings.smtp_password)
        except BaseException:
            server.close()
            raise
        return server


def _translated(error: Exception) -> MillraceError:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return CredentialsError("the mail server refused the user and password of the settings")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return InvalidError(f"the mail server cannot do what is asked: {error}", field="smtp_security")
    answers: list[tuple[int, bytes | str]] = []
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = list(error.recipients.values())
    elif isinstance(error, smtplib.SMTPResponseException):
        answers = [(error.smtp_code, error.smtp_error)]
    if not answers:
        return UnavailableError(f"the mail server was not reached: {type(error).__name__}")
    code, text = answers[0]
    answer = text.decode(errors="replace") if isinstance(text, bytes) else text
    kind = DeniedError if all(code >= 500 for code, _ in answers) else UnavailableError
    return kind(f"the mail server answered {code} {answer[:200]}")
