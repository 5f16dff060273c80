"""
Test Connection of a webhook: whether its name is known, may be connected to and speaks TLS, and what it answers to one
signed message that says what it is.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from hooks.sinks.probe_message import marked_message
from hooks.sinks.webhook.sink import REQUEST_S, WebhookConfig
from shared.contracts.connection_report import Check, Finding
from shared.private_addresses import is_private

DEADLINE_S: Final = 2 * REQUEST_S
"""For all steps, of which one has half: a receiver that is slow and confirms in time is a good one."""

ADDRESS_S: Final = 4.0
"""For one address of several, such as one of IPv6 where only IPv4 gets out."""

HINTS: Final[dict[int, str]] = {
    401: "Check that the receiver knows this secret, and checks the body as it came.",
    403: "Check what stands before the receiver, such as a firewall: it sees a POST without a session.",
    404: "Check the path of the url.",
    405: "The receiver has to take POST.",
    410: "The receiver says that it wants no more.",
    413: "The receiver, or what stands before it, takes only smaller bodies.",
}

SILENT: Final = "Check the url, and that a firewall lets this host reach it."

_Address = tuple[Any, ...]


def webhook_checks(
    config: WebhookConfig, http: aiohttp.ClientSession, clock: Callable[[], datetime], *, allow_private: bool
) -> tuple[Check, ...]:
    """The steps. `config` is one that `WebhookConfig.check` lets through, `http` one of `open_session`."""
    parts = urlsplit(config.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    addresses: list[_Address] = []

    async def resolve() -> Finding:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses.extend(address for *_, address in found)
        return Finding(message=f"{host} has {len(addresses)} {'address' if len(addresses) == 1 else 'addresses'}")

    async def allow() -> Finding:
        if not allow_private and any(is_private(str(address[0])) for address in addresses):
            return Finding(
                status="failed",
                code="PrivateAddress",
                message=f"{host} is not reachable from the internet",
                hint="Give an address that everybody can reach.",
            )
        return Finding(message=f"{host} may be connected to")

    async def shake_hands() -> Finding:
        if parts.scheme != "https":
            return Finding(status="warning", message="the url is http://, so what is sent can be read on its way")
        refusal: OSError | None = None
        # To the very addresses that were found to be allowed: the name may say another thing the second time.
        for address in addresses:
            try:
                async with asyncio.timeout(ADDRESS_S):
                    return await _shake_hands(host, address)
            except ssl.SSLError:
                raise
            except OSError as error:
                refusal = error
        assert refusal is not None
        raise refusal

    async def post() -> Finding:
        name, body = marked_message()
        status, error = await config.open(http, clock).post(name, body, config.key)
        if error is None:
            return Finding(message=f"the receiver confirmed {name} with HTTP {status}", http_status=status)
        return Finding(
            status="failed",
            code=error.code,
            message=error.message,
            http_status=status,
            hint=HINTS.get(status or 0),
        )

    return (
        Check(name="name", run=_told_of_network(resolve), silent=SILENT),
        Check(name="address", run=allow, needs=("name",)),
        Check(name="tls", run=_told_of_network(shake_hands), needs=("address",), silent=SILENT),
        Check(name="answer", run=post, needs=("tls",), silent=SILENT),
    )


async def _shake_hands(host: str, address: _Address) -> Finding:
    _, writer = await asyncio.open_connection(
        address[0], address[1], ssl=ssl.create_default_context(), server_hostname=host
    )
    try:
        shaken: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = shaken.getpeercert() or {}
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        return Finding(message=f"{shaken.version()}, with a certificate that is good until {until:%Y-%m-%d}")
    finally:
        writer.transport.abort()


def _told_of_network(run: Callable[[], Any]) -> Callable[[], Any]:
    """What the network says against it, as a finding."""

    async def told() -> Finding:
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
                status="failed", code=type(refused).__name__, message="the receiver cannot be reached", hint=SILENT
            )
        return finding

    return told
