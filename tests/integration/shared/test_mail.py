"""E-mail through a real mail server."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from shared.errors import CredentialsError, DeniedError, InvalidError, UnavailableError
from shared.mail import Mail, Mailer
from shared.runtime.settings import Settings
from support.servers.mail import PASSWORD, USER, MailServer, certificate, mail_server

MAIL = Mail(
    id="summary.shop.2026-11-21",
    to=("ada@shop.example", "can@shop.example"),
    subject="Mağaza: 3 files",
    text="İyi günler.\n" + "x" * 2000 + "\n",
    at=datetime(2026, 11, 22, 8, 0, tzinfo=UTC),
)
SETTINGS = Settings(smtp_host="127.0.0.1", smtp_security="none", smtp_sender="files@millrace.example")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


def mailer(server: MailServer, **changes: object) -> Mailer:
    return Mailer(msgspec.structs.replace(SETTINGS, smtp_port=server.port, **changes), ssl.create_default_context())


async def test_message_arrives_as_it_was_written(server: MailServer) -> None:
    assert () == await mailer(server).send(MAIL)

    [mail] = server.mails
    assert ("files@millrace.example", "ada@shop.example, can@shop.example") == (mail["From"], mail["To"])
    assert ("Mağaza: 3 files", "<summary.shop.2026-11-21@millrace.example>") == (mail["Subject"], mail["Message-ID"])
    assert ("auto-generated", MAIL.text) == (
        mail["Auto-Submitted"],
        mail.get_content().replace("\r\n", "\n"),
    )


async def test_refused_recipients_are_returned_and_the_others_get_the_mail(server: MailServer) -> None:
    server.refused = {"can@shop.example"}

    assert ("can@shop.example",) == await mailer(server).send(MAIL)
    assert 1 == len(server.mails)


async def test_message_without_an_accepted_recipient_is_refused(server: MailServer) -> None:
    server.refused = set(MAIL.to)

    with pytest.raises(DeniedError, match="550 nobody of this name"):
        await mailer(server).send(MAIL)


@pytest.mark.parametrize(("answer", "kind"), [("451 come later", UnavailableError), ("554 this is spam", DeniedError)])
async def test_answer_of_the_server_says_whether_trying_again_helps(
    server: MailServer, answer: str, kind: type[Exception]
) -> None:
    server.answer = answer

    with pytest.raises(kind, match=answer):
        await mailer(server).send(MAIL)


async def test_server_that_is_down_is_unavailable() -> None:
    async with mail_server() as server:
        gone = mailer(server)

    with pytest.raises(UnavailableError):
        await gone.send(MAIL)


async def test_signing_in_is_done_over_tls_with_a_certificate_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = certificate(tmp_path)
    async with mail_server(tls=context) as server:
        account = {"smtp_security": "starttls", "smtp_user": USER, "smtp_password": PASSWORD}
        with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
            await mailer(server, **account).send(MAIL)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        await mailer(server, **account).send(MAIL)
        with pytest.raises(CredentialsError):
            await mailer(server, **account | {"smtp_password": "wrong"}).send(MAIL)

        assert 1 == len(server.mails)


@pytest.mark.parametrize("security", ["starttls", "none"])
async def test_password_does_not_go_over_the_line_in_clear(server: MailServer, security: str) -> None:
    with pytest.raises(InvalidError):
        await mailer(server, smtp_security=security, smtp_user=USER, smtp_password=PASSWORD).send(MAIL)

    assert [] == server.mails


async def test_nothing_is_sent_without_a_server() -> None:
    nobody = Mailer(Settings(), ssl.create_default_context())

    assert not nobody.configured
    with pytest.raises(InvalidError):
        await nobody.send(MAIL)
