"""Routes of customers' own servers: configuration, Test Connection, the host key, and the status of the pulls."""

from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from ftp_gateway.remotes.remote import REMOTES, OfferedHostKey, Remote
from ftp_gateway.remotes.state import RemoteFailure
from ftp_gateway.state import State
from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.errors import ConflictError, NotFoundError
from shared.http.resources import ConfigChange, resource_routes
from shared.http.routes import Route
from shared.http.server import Call

PATH: Final = "/v1/apps/{app_key}/remotes"


class Fingerprint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fingerprint of the key to be accepted, as its owner gave it: `SHA256:…`."""

    fingerprint: str


class RemoteStatus(Struct, frozen=True, kw_only=True):
    """
    Status of a remote.

    `error` is why the last check failed. `offered_host_key` is a key that the server showed and no user has accepted.
    `next_look_at` is missing while the remote is not active, or before its first check has ended.
    """

    looked_at: datetime | None
    pulled_at: datetime | None
    next_look_at: datetime | None
    files_pulled: int
    bytes_pulled: int
    error: RemoteFailure | None
    offered_host_key: OfferedHostKey | None


async def check_remote(call: Call[State], remote: Remote, old: Remote | None) -> Remote:
    """Check a remote before it is saved. An accepted host key stays with its server."""
    if remote.host_key is None and old is not None and remote.protocol == "sftp" and remote.at == old.at:
        remote = replace(remote, host_key=old.host_key)
    await call.state.remotes.check(remote)
    return remote


async def test_remote(call: Call[State]) -> ConnectionReport:
    """Test Connection, of the form's values over the saved ones."""
    remote_id = _id(call)
    form = decode(await call.read_json() or b"{}", dict[str, Any])
    remote = await call.registry.form_over_saved(REMOTES, call.app_key, form, remote_id)
    await call.state.remotes.check(remote)
    report, offered = await call.state.remotes.probe(remote)
    if offered is not None:
        await call.state.remotes.state_of(call.app_key, remote_id).put_offered(offered)
    return report


async def accept_host_key(call: Call[State]) -> ConfigChange:
    """Accept the key that the server showed last."""
    asked: Fingerprint = call.body
    entry = await call.registry.get(REMOTES, call.app_key, _id(call))
    offered = await call.state.remotes.state_of(call.app_key, entry.id).read_offered()
    if offered is None:
        raise NotFoundError("the server has shown no host key yet; test the connection first")
    if offered.fingerprint != asked.fingerprint:
        raise ConflictError(f"the server showed {offered.fingerprint}, which is another key", field="fingerprint")
    remote = replace(entry.value, host_key=offered.public_key)
    if remote == entry.value:
        return ConfigChange(change="unchanged", fields=(), revision=entry.revision)
    await call.state.remotes.check(remote)
    stored = await call.registry.put(REMOTES, call.app_key, entry.id, remote, expect_revision=entry.revision)
    return ConfigChange(change="updated", fields=("host_key",), revision=stored.revision)


async def show_status(call: Call[State]) -> RemoteStatus:
    """Show the status, as the pulls of any replica stored it."""
    entry = await call.registry.get(REMOTES, call.app_key, _id(call))
    state = call.state.remotes.state_of(call.app_key, entry.id)
    progress, offered = await state.read_progress(), await state.read_offered()
    return RemoteStatus(
        looked_at=progress.looked_at,
        pulled_at=progress.pulled_at,
        next_look_at=progress.next_look_at if entry.value.active and progress.revision == entry.revision else None,
        files_pulled=progress.files_pulled,
        bytes_pulled=progress.bytes_pulled,
        error=progress.trouble,
        offered_host_key=None if offered is not None and offered.public_key == entry.value.host_key else offered,
    )


def _id(call: Call[State]) -> str:
    return subjects.check_name(call.path["id"], "id")


ROUTES: tuple[Route, ...] = (
    *resource_routes(REMOTES, PATH, "a remote", check=check_remote),
    Route(
        "POST",
        f"{PATH}/{{id}}/test",
        test_remote,
        "Test Connection: try the values of the form, the saved ones for what it leaves out",
        reply=ConnectionReport,
    ),
    Route(
        "POST",
        f"{PATH}/{{id}}/accept-host-key",
        accept_host_key,
        "Accept the host key that the server showed",
        body=Fingerprint,
        reply=ConfigChange,
    ),
    Route("GET", f"{PATH}/{{id}}/status", show_status, "Show how the pulls go", reply=RemoteStatus),
)
