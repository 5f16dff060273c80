"""HTTP routes: parse, call, respond. No rules."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from exporter.access.policies import ExportPolicies
from exporter.access.trust import RoleTrust
from exporter.config.export import EXPORTS, Export, check_number
from exporter.exports.run_store import Run, Runs
from exporter.exports.runs.lag import ExportLag
from exporter.exports.watching.status import ExportStatus
from exporter.lake.lake import LakeFiles
from exporter.pipeline.sample_files import SampleFiles
from exporter.replays.replay import ReplayRequest, ReplayStatus, ReplayStatuses
from exporter.state import State
from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.keys import LAKE_EXPORT
from shared.contracts.messages import decode
from shared.errors import ConflictError
from shared.http.openapi import ConnectionProblem
from shared.http.resources import Shown, resource_routes
from shared.http.routes import Query, Route
from shared.http.server import Call

PATH: Final = "/v1/apps/{app_key}/exports"
REPLAYS_PATH: Final = f"{PATH}/{{id}}/replays"
LAKE_PATH: Final = "/v1/apps/{app_key}/lake"
EXTERNAL_ID_PATH: Final = "/v1/apps/{app_key}/external-id"
REGION: Final = r"^[a-z0-9-]{2,32}$(?!\n)"
USUAL_REGION: Final = "us-east-1"
FLUSH_WAIT_S: Final = 60.0
"""The longest wait of a flush. Then it returns the record of the run in progress."""
STATUS_FIELD: Final = "status"
RUNS_MAX: Final = 1000
RunId = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$(?!\n)")]
PAGE_OF_RUNS: Final = {
    "before": Query("The id of a run, to begin behind it: `next` of the page before", RunId),
    "limit": Query("The largest number of runs", Annotated[int, Meta(ge=1, le=RUNS_MAX)], 50),
}


class ShownExport(Export, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An export as it is shown: with its status, which `PUT` passes over. An export that has not begun has none."""

    status: ExportStatus | None = None


async def check_export(call: Call[State], value: Export, old: Export | None) -> Export:
    """Check an export before it is saved. Its progress begins here, so that no event in between is missed."""
    export_id = call.path["id"]
    for export in filter(None, (value, old)):
        export.check_token(is_operator=call.is_operator)
    value.check(allow_private=call.state.platform.allow_private)
    if old is None or old.shards != value.shards:
        check_number(value, export_id, await call.registry.list(EXPORTS, call.app_key))
    if call.dry_run:
        await call.state.folder_claims.check_own((call.app_key, export_id), value.folder(call.app_key))
    else:
        if old is None:
            # Those of an export of this id that was deleted, where its deletion was cut off.
            await call.state.replays.remove(call.app_key, export_id, call.state.folder_claims)
        await call.state.launch((call.app_key, export_id), value, old, force=call.query_values["force"])
        await call.state.scheduler.begin(
            (call.app_key, export_id), value.schedule(call.app_key, export_id), value.shards
        )
        if value == old:
            # A new revision wakes it by itself, and there is none.
            await call.state.scheduler.wake((call.app_key, export_id))
    return value


async def find_statuses(call: Call[State], export_ids: Sequence[str]) -> Mapping[str, ExportStatus]:
    """The statuses of exports, which `GET` shows beside their configuration."""
    return await call.state.scheduler.statuses(call.app_key, export_ids)


async def settle_folders(call: Call[State], old: Export | None, new: Export | None) -> None:
    """Release the folder of an export that was moved or deleted."""
    if new is None:
        await call.state.replays.remove(call.app_key, call.path["id"], call.state.folder_claims)
    folders = [export.folder(call.app_key) for export in (old, new) if export is not None]
    await call.state.folder_claims.settle((call.app_key, call.path["id"]), folders)


async def flush(call: Call[State]) -> Run:
    """Export everything that was published before this call."""
    entry = await call.registry.get(EXPORTS, call.app_key, _id(call))
    if not entry.value.active:
        raise ConflictError("the export is not active")
    return await call.state.scheduler.flush((call.app_key, entry.id), entry.revision, FLUSH_WAIT_S)


async def test_export(call: Call[State]) -> ConnectionReport:
    """Test Connection with the values of the form in place of the saved ones."""
    form = decode(await call.read_json() or b"{}", dict[str, Any])
    form.pop(STATUS_FIELD, None)
    return await call.state.test_connection(call.app_key, _id(call), form, is_operator=call.is_operator)


async def show_policies(call: Call[State]) -> ExportPolicies:
    """The least policies for a saved export."""
    return await call.state.policies(call.app_key, _id(call), {})


async def make_policies(call: Call[State]) -> ExportPolicies:
    """The least policies with the values of the form in place of the saved ones."""
    form = decode(await call.read_json() or b"{}", dict[str, Any])
    return await call.state.policies(subjects.check_new_app_key(call.app_key), _id(call), form)


async def list_runs(call: Call[State]) -> Runs:
    """A page of the runs of an export, the newest first."""
    before, limit = call.query_values["before"], call.query_values["limit"]
    return await call.state.run_store.page(call.app_key, _id(call), before=before, limit=limit)


async def get_run(call: Call[State]) -> Run:
    """One run. Its export may be deleted."""
    return await call.state.run_store.get(call.app_key, _id(call), _run_id(call))


async def cancel_run(call: Call[State]) -> Run:
    """Cancel a run in progress."""
    return await call.state.run_control.cancel(call.app_key, _id(call), _run_id(call))


async def retry_run(call: Call[State]) -> Run:
    """Let a run that waits try now, or start one in the place of a run that has failed."""
    tried = await call.state.run_control.retry_waiting(call.app_key, _id(call), _run_id(call))
    return tried if tried is not None else await flush(call)


async def show_lag(call: Call[State]) -> ExportLag:
    """The events that wait to be exported."""
    entry = await call.registry.get(EXPORTS, call.app_key, _id(call))
    return await call.state.lag_of((call.app_key, entry.id))


async def send_test_events(call: Call[State]) -> SampleFiles:
    """Write one test event of each chosen type into the destination."""
    return await call.state.send_test_events(call.app_key, _id(call), is_operator=call.is_operator)


async def start_replay(call: Call[State]) -> ReplayStatus:
    """Write what the export has delivered once more, into a folder of its own."""
    entry = await call.registry.get(EXPORTS, call.app_key, _id(call))
    entry.value.check_token(is_operator=call.is_operator)
    return await call.state.start_replay(entry, call.body)


async def list_replays(call: Call[State]) -> ReplayStatuses:
    """Replays of an export, the newest first."""
    return await call.state.replays.of_export(call.app_key, _id(call))


async def get_replay(call: Call[State]) -> ReplayStatus:
    """One replay."""
    return await call.state.replays.show(call.app_key, _id(call), call.path["replay_id"])


async def list_replay_runs(call: Call[State]) -> Runs:
    """Runs of a replay, the newest first."""
    replay = await call.state.replays.find(call.app_key, _id(call), call.path["replay_id"])
    before, limit = call.query_values["before"], call.query_values["limit"]
    return await call.state.run_store.page(call.app_key, replay.job_id, before=before, limit=limit)


async def delete_replay(call: Call[State]) -> None:
    """Cancel a replay, or delete one that has ended."""
    replay = await call.state.replays.find(call.app_key, _id(call), call.path["replay_id"])
    await call.state.replays.remove(call.app_key, _id(call), call.state.folder_claims, replay_id=replay.id)


async def show_lake(call: Call[State]) -> LakeFiles:
    """The files of an app's lake, the newest day first."""
    return await call.state.lake.files(call.app_key)


async def flush_lake(call: Call[State]) -> Run:
    """Write everything that was published before this call into the lake."""
    await call.state.lake.look_for(call.app_key)
    return await call.state.scheduler.flush((call.app_key, LAKE_EXPORT), 0, FLUSH_WAIT_S)


async def erase_lake(call: Call[State]) -> None:
    """Erase an app's lake."""
    await call.state.lake.erasure.erase(call.app_key)


async def show_external_id(call: Call[State]) -> RoleTrust:
    """The app's external id, made with the first call, and the trust policy of a role."""
    external_id = await call.state.external_ids.of_app(subjects.check_new_app_key(call.app_key))
    return await call.state.own_accounts.trust(external_id, call.query_values["region"])


async def remove_external_id(call: Call[State]) -> None:
    """Remove the external id of an app that is deleted."""
    if any(entry.value.has_role for entry in await call.registry.list(EXPORTS, call.app_key)):
        raise ConflictError("an export of the app has a role, whose trust policy demands the external id")
    await call.state.external_ids.remove(call.app_key)


def _id(call: Call[State]) -> str:
    return subjects.check_name(call.path["id"], "id")


def _run_id(call: Call[State]) -> str:
    return subjects.check_name(call.path["run_id"], "run_id")


ROUTES: tuple[Route, ...] = (
    *resource_routes(
        EXPORTS,
        PATH,
        "an export",
        check=check_export,
        settle=settle_folders,
        shown=Shown(ShownExport, STATUS_FIELD, find_statuses),
        query={"force": Query("Store it although Test Connection fails", bool, False)},
        also={422: ConnectionProblem},
    ),
    Route("POST", f"{PATH}/{{id}}/flush", flush, "Start a run now and return it", reply=Run),
    Route(
        "POST",
        f"{PATH}/{{id}}/test",
        test_export,
        "Test Connection: use the values of the form, and saved values for fields that it omits",
        reply=ConnectionReport,
    ),
    Route(
        "GET",
        f"{PATH}/{{id}}/policy",
        show_policies,
        "Show the least policies of IAM for an export, and its role's trust policy",
        reply=ExportPolicies,
    ),
    Route(
        "POST",
        f"{PATH}/{{id}}/policy",
        make_policies,
        "Make the least policies of IAM for the values of the form, and saved values for fields that it omits",
        reply=ExportPolicies,
    ),
    Route(
        "GET",
        f"{PATH}/{{id}}/runs",
        list_runs,
        "List the runs of an export, the newest first",
        reply=Runs,
        query=PAGE_OF_RUNS,
    ),
    Route("GET", f"{PATH}/{{id}}/runs/{{run_id}}", get_run, "Show a run", reply=Run),
    Route(
        "GET",
        f"{PATH}/{{id}}/lag",
        show_lag,
        "Show the lag of an export: the events that wait for it, and the age of the oldest",
        reply=ExportLag,
    ),
    Route(
        "POST",
        f"{PATH}/{{id}}/test-events",
        send_test_events,
        "Write one test event of each chosen type into a folder test=true of the destination, and return the keys",
        reply=SampleFiles,
    ),
    Route(
        "POST",
        f"{PATH}/{{id}}/runs/{{run_id}}/cancel",
        cancel_run,
        "Cancel a run that is running or retrying: it ends after the file in progress, and the next one continues",
        reply=Run,
    ),
    Route(
        "POST",
        f"{PATH}/{{id}}/runs/{{run_id}}/retry",
        retry_run,
        "Let a retrying run try now, or start a run in the place of one that has failed",
        reply=Run,
    ),
    Route(
        "POST",
        REPLAYS_PATH,
        start_replay,
        "Write events that the export has delivered once more, into a folder of their own",
        body=ReplayRequest,
        reply=ReplayStatus,
        status=201,
        also={422: ConnectionProblem},
    ),
    Route("GET", REPLAYS_PATH, list_replays, "List the replays of an export, the newest first", reply=ReplayStatuses),
    Route("GET", f"{REPLAYS_PATH}/{{replay_id}}", get_replay, "Show a replay", reply=ReplayStatus),
    Route(
        "DELETE",
        f"{REPLAYS_PATH}/{{replay_id}}",
        delete_replay,
        "Cancel a replay, or delete one that has ended; its files stay",
        status=204,
    ),
    Route(
        "GET",
        f"{REPLAYS_PATH}/{{replay_id}}/runs",
        list_replay_runs,
        "List the runs of a replay, the newest first",
        reply=Runs,
        query=PAGE_OF_RUNS,
    ),
    Route("GET", LAKE_PATH, show_lake, "List the files of the lake, the newest day first", reply=LakeFiles),
    Route("DELETE", LAKE_PATH, erase_lake, "Erase the lake", status=204),
    Route("POST", f"{LAKE_PATH}/flush", flush_lake, "Write what is new into the lake now", reply=Run),
    Route(
        "GET",
        EXTERNAL_ID_PATH,
        show_external_id,
        "Show the external id with which roles of the app's AWS are assumed, and a role's trust policy",
        reply=RoleTrust,
        query={"region": Query("The region of the bucket", Annotated[str, Meta(pattern=REGION)], USUAL_REGION)},
    ),
    Route(
        "DELETE",
        EXTERNAL_ID_PATH,
        remove_external_id,
        "Remove the external id of a deleted app; one that is made later is another",
        scope="admin",
        status=204,
    ),
)
