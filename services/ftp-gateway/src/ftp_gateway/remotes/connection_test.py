"""
Test Connection of a remote: the steps of a pull, once, without pulling a file.
"""

from collections.abc import Awaitable, Callable

from ftp_gateway.remotes.pull import MAX_LISTED, OpenServer
from ftp_gateway.remotes.remote import OfferedHostKey, Remote, UnknownHostError, place_of
from shared.contracts.connection_report import DEADLINE_S, Check, ConnectionReport, Finding, run_checks
from shared.errors import MillraceError

Identify = Callable[[Remote], Awaitable[str]]
"""Describes the server's accepted key or certificate, or raises `UnknownHostError`."""

HINTS = {
    "credentials": "Check the username, the password and the key, and that the account is not locked.",
    "not_found": "Check the path; it is seen from where the account signs in.",
    "unavailable": "Check host and port, and that the server's firewall lets our addresses in.",
}
TIMEOUT_HINT = "Check that the server's firewall lets our addresses in."


async def probe_remote(
    remote: Remote, *, identify: Identify, open_server: OpenServer, deadline_s: float = DEADLINE_S
) -> tuple[ConnectionReport, OfferedHostKey | None]:
    """Return the connection report, and the host key that the server showed where it is not the accepted one."""
    offered: list[OfferedHostKey] = []

    async def identity() -> Finding:
        try:
            return Finding(message=await identify(remote))
        except UnknownHostError as error:
            if error.offered is None:
                hint = "Check the certificate, or give the authority that signed it or its SHA-256."
            else:
                offered.append(error.offered)
                hint = "Ask whose server it is for this fingerprint, and accept the key if it is the same."
            return Finding(status="failed", code="unknown_host", message=error.message, hint=hint)

    async def sign_in() -> Finding:
        async with open_server(remote):
            return Finding(message=f"signed in as {remote.username}")

    async def list_files() -> Finding:
        async with open_server(remote) as server:
            files = [file for file in await server.list_files(remote.path, MAX_LISTED) if file.regular]
        matching = [file for file in files if place_of(remote, "-", file.name) is not None]
        message = f"{len(matching)} of {len(files)} files fit the patterns"
        return Finding(message=message, status="ok" if matching or not files else "warning")

    checks = (
        Check(name="identity", run=identity, explain=_explain, timeout_hint=TIMEOUT_HINT),
        Check(name="sign_in", run=sign_in, explain=_explain, timeout_hint=TIMEOUT_HINT, needs=("identity",)),
        Check(name="list", run=list_files, explain=_explain, timeout_hint=TIMEOUT_HINT, needs=("sign_in",)),
    )
    report = await run_checks(checks, deadline_s=deadline_s)
    return report, offered[0] if offered else None


def _explain(error: MillraceError) -> Finding:
    return Finding(status="failed", code=error.code, message=error.message, hint=HINTS.get(error.code))
