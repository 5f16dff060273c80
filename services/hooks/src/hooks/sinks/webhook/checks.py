"""
Test Connection of a webhook: its name is known, its addresses are allowed, it speaks TLS, and it confirms one marked,
signed message.
"""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from hooks.sinks.probe_message import probe_message
from hooks.sinks.webhook.sink import REQUEST_S, WebhookSink
from shared.contracts.connection_report import Check, Finding
from shared.outgoing.addresses import UNREACHABLE, AddressInfo
from shared.outgoing.door import Outgoing

DEADLINE_S: Final = 2 * REQUEST_S
"""Time limit of all steps, of which one may use half: a receiver that confirms within `REQUEST_S` is a good one."""

ADDRESS_S: Final = 4.0
"""Time limit of one address of several, such as an IPv6 address on a network that has only IPv4."""

HINTS: Final[dict[int, str]] = {
    401: "Check that the receiver knows this secret, and checks the body as it came.",
    403: "Check what stands before the receiver, such as a firewall: it sees a POST without a session.",
    404: "Check the path of the url.",
    405: "The receiver has to take POST.",
    410: "The receiver says that it wants no more.",
    413: "The receiver, or what stands before it, takes only smaller bodies.",
}

TIMEOUT_HINT: Final = "Check the url, and that a firewall lets this host reach it."


def webhook_checks(url: str, sink: WebhookSink, outgoing: Outgoing) -> tuple[Check, ...]:
    """The steps, for the sink of a configuration that was checked. A proxy takes all but the last upon itself."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    addresses: list[AddressInfo] = []

    async def resolve() -> Finding:
        addresses.extend(await outgoing.tcp.resolve(host, port))
        return Finding(message=f"{host} has {len(addresses)} {'address' if len(addresses) == 1 else 'addresses'}")

    async def allow() -> Finding:
        if any(map(outgoing.tcp.refuses, addresses)):
            return Finding(
                status="failed",
                code="PrivateAddress",
                message=f"{host} is {UNREACHABLE}",
                hint="Give an address that everybody can reach.",
            )
        return Finding(message=f"{host} may be connected to")

    async def handshake() -> Finding:
        if parts.scheme != "https":
            return Finding(status="warning", message="the url is http://, so what is sent can be read on its way")
        refusal: OSError | None = None
        # To the same addresses that were checked: the name may resolve to others the second time.
        for address in addresses:
            try:
                async with asyncio.timeout(ADDRESS_S):
                    return await _tls_handshake(host, address, outgoing)
            except ssl.SSLError:
                raise
            except OSError as error:
                refusal = error
        assert refusal is not None
        raise refusal

    async def post() -> Finding:
        name, body = probe_message()
        status, error = await sink.probe(name, body)
        if error is None:
            return Finding(message=f"the receiver confirmed {name} with HTTP {status}", http_status=status)
        return Finding(
            status="failed",
            code=error.code,
            message=error.message,
            http_status=status,
            hint=HINTS.get(status or 0),
        )

    answer = Check(name="answer", run=post, needs=("tls",), timeout_hint=TIMEOUT_HINT)
    if outgoing.guarded.proxy_of(url) is not None:
        return (msgspec.structs.replace(answer, needs=()),)
    return (
        Check(name="name", run=_network_errors_found(resolve), timeout_hint=TIMEOUT_HINT),
        Check(name="address", run=allow, needs=("name",)),
        Check(name="tls", run=_network_errors_found(handshake), needs=("address",), timeout_hint=TIMEOUT_HINT),
        answer,
    )


async def _tls_handshake(host: str, address: AddressInfo, outgoing: Outgoing) -> Finding:
    sock = await outgoing.tcp.connect(address)
    try:
        _, writer = await asyncio.open_connection(sock=sock, ssl=outgoing.tls, server_hostname=host)
    except BaseException:
        sock.close()
        raise
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert() or {}
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        return Finding(message=f"{tls.version()}, with a certificate that is good until {until:%Y-%m-%d}")
    finally:
        writer.transport.abort()


def _network_errors_found(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run`, with errors of the network as findings."""

    async def checked() -> Finding:
        try:
            finding: Finding = await run()
        except ssl.SSLCertVerificationError as refused:
            return Finding(
                status="failed",
                code="certificate",
                message=f"the certificate is not trusted: {refused.verify_message}",
                hint="Give the receiver a certificate of a known authority, with its whole chain.",
            )
        except ssl.SSLError as refused:
            return Finding(status="failed", code="tls", message=f"no TLS there: {refused.reason or 'cut off'}")
        except (OSError, UnicodeError) as refused:
            return Finding(
                status="failed",
                code=type(refused).__name__,
                message="the receiver cannot be reached",
                hint=TIMEOUT_HINT,
            )
        return finding

    return checked
