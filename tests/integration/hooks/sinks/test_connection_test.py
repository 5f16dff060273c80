"""Test Connection of a hook: its requests to a receiver, its report, and the secrets that stay out of it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hooks.sinks.webhook.checks import webhook_checks
from hooks.sinks.webhook.client import WebhookClient
from hooks.sinks.webhook.config import WebhookConfig
from shared.config.secret import Secret
from shared.contracts.connection_report import ConnectionReport, run_checks
from support.clients.hooks import HooksClient
from support.outgoing import open_outgoing
from support.servers.kinesis import FaultyKinesis
from support.servers.webhooks import SECRET, Receiver

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OTHER_SECRET = "whsec_" + "QUJD" * 8


def webhook(receiver: Receiver, **changes: Any) -> dict[str, Any]:
    return {"type": "WEBHOOK", "stream_name": "", "url": receiver.url, "secret": SECRET} | changes


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in report["steps"]}


async def test_a_saved_webhook_is_posted_one_signed_message_that_says_what_it_is(
    client: HooksClient, receiver: Receiver
) -> None:
    await client.hook("all", **webhook(receiver))

    status, told = await client.ask("POST", "/hooks/all/test")

    (received,) = receiver.received
    assert ("millrace.test.v1", received.id) == (received.value["schema"], received.value["id"])
    assert (200, "warning") == (status, told["status"])
    assert {"name": "ok", "address": "ok", "tls": "warning", "answer": "ok"} == verdicts(told)
    assert (200, f"the receiver confirmed {received.id} with HTTP 200") == (
        told["steps"][3]["http_status"],
        told["steps"][3]["message"],
    )


async def test_values_of_the_form_go_before_the_saved_ones(client: HooksClient, receiver: Receiver) -> None:
    receiver.secret = OTHER_SECRET
    await client.hook("all", **webhook(receiver))

    _, saved = await client.ask("POST", "/hooks/all/test", {})
    _, changed = await client.ask("POST", "/hooks/all/test", {"secret": OTHER_SECRET})
    form = {"name": "new", "trigger_type": "EVENT", "event_code": "*"} | webhook(receiver, secret=OTHER_SECRET)
    _, unsaved = await client.ask("POST", "/hooks/new/test", form)

    answer = saved["steps"][3]
    assert ("failed", "credentials", 401) == (answer["status"], answer["code"], answer["http_status"])
    assert "secret" in answer["hint"]
    assert ["ok", "ok"] == [report["steps"][3]["status"] for report in (changed, unsaved)]
    told = json.dumps([saved, changed, unsaved])
    assert SECRET not in told
    assert OTHER_SECRET not in told
    assert (404, None) == ((await client.ask("GET", "/hooks/new"))[0], None)


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [({}, 404, None), ({"url": "nowhere"}, 400, "url"), ({"secret": "whsec_c2hvcnQ="}, 400, "secret")],
)
async def test_a_form_that_cannot_be_saved_is_not_tried(
    client: HooksClient, receiver: Receiver, form: dict[str, Any], status: int, field: str | None
) -> None:
    whole = {"name": "new", "trigger_type": "EVENT", "event_code": "*"} | webhook(receiver) if form else {}

    got, told = await client.ask("POST", "/hooks/new/test", whole | form)

    assert (status, field) == (got, told["error"].get("field"))
    assert 0 == receiver.asked


async def test_the_stream_of_a_hook_is_tried_with_the_saved_connector(client: HooksClient) -> None:
    async with FaultyKinesis() as kinesis:
        kinesis.create_stream("orders")
        await client.hook("all")
        missing, _ = await client.ask("POST", "/hooks/all/test")
        await client.connect(kinesis)

        _, looked = await client.ask("POST", "/hooks/all/test")
        _, put = await client.ask("POST", "/hooks/all/test", {"test_record": True})
        _, elsewhere = await client.ask("POST", "/hooks/all/test", {"stream_name": "gone"})

        assert 404 == missing
        assert {"identity": "ok", "stream": "ok", "record": "skipped"} == verdicts(looked)
        assert {"identity": "ok", "stream": "ok", "record": "ok"} == verdicts(put)
        assert 1 == len(kinesis.records("orders"))
        assert {"identity": "ok", "stream": "failed", "record": "skipped"} == verdicts(elsewhere)


async def check(url: str, *, allow_private: bool = True) -> ConnectionReport:
    config = WebhookConfig(url=url, secret=Secret(SECRET))
    async with open_outgoing(allow_private_endpoints=allow_private) as outgoing:
        sink = config.open(WebhookClient(outgoing, lambda: NOW), "hook", lambda _: None)
        return await run_checks(webhook_checks(url, sink, outgoing))


async def test_an_address_of_our_own_network_is_reported_and_not_connected_to(receiver: Receiver) -> None:
    report = await check(receiver.url.replace("127.0.0.1", "localhost"), allow_private=False)

    assert ["ok", "failed", "skipped", "skipped"] == [step.status for step in report.steps]
    assert "PrivateAddress" == report.steps[1].code
    assert 0 == receiver.asked


async def test_an_unknown_host_name_is_reported() -> None:
    report = await check("https://receiver.invalid/hook")

    assert ["failed", "skipped", "skipped", "skipped"] == [step.status for step in report.steps]
    assert "gaierror" == report.steps[0].code


@asynccontextmanager
async def speaking_tls(folder: Path) -> AsyncIterator[str]:
    """Run a server on `localhost` with an unknown certificate, `folder/certificate.pem`. Yields its URL."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    began = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/hook"


async def test_an_unknown_certificate_is_reported_and_nothing_is_posted(tmp_path: Path) -> None:
    async with speaking_tls(tmp_path) as url:
        report = await check(url)

    assert ["ok", "ok", "failed", "skipped"] == [step.status for step in report.steps]
    assert "certificate" == report.steps[2].code
    assert "self-signed" in report.steps[2].message


async def test_a_known_certificate_is_reported_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with speaking_tls(tmp_path) as url:
        report = await check(url)

    assert "ok" == report.steps[2].status
    assert f"good until {datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}" in report.steps[2].message


async def test_a_receiver_without_tls_is_reported(receiver: Receiver) -> None:
    report = await check(receiver.url.replace("http:", "https:"))

    assert ["ok", "ok", "failed", "skipped"] == [step.status for step in report.steps]
    assert "tls" == report.steps[2].code


async def test_an_unreachable_receiver_is_reported() -> None:
    report = await check("https://127.0.0.1:9/hook")

    assert ["ok", "ok", "failed", "skipped"] == [step.status for step in report.steps]
    assert ("ConnectionRefusedError", "the receiver cannot be reached") == (
        report.steps[2].code,
        report.steps[2].message,
    )
