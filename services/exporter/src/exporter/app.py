"""
Construction of the exporter service: its parts, in the order of their dependencies. It holds no rules; nothing is
constructed elsewhere.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from functools import partial

from exporter import SERVICE_NAME
from exporter.access.external_ids import EXTERNAL_IDS, ExternalIds
from exporter.access.trust import OwnAccounts
from exporter.config.export import EXPORTS, job_of
from exporter.config.settings import ExporterSettings
from exporter.destinations.platform import Platform
from exporter.destinations.retention import remove_expired
from exporter.destinations.store_destination import FILE_LIMITS
from exporter.exports.job import ExportJob
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.run_store import RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.runs.lag import ExportLag, LagMeter, lag_of
from exporter.exports.runs.run_control import RunControl
from exporter.exports.scheduler import ExportScheduler
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import Key
from exporter.folders.claims import Folder, Owner
from exporter.folders.folder_claims import FolderClaims
from exporter.formats import formats_with
from exporter.formats.parquet import ParquetWorkers
from exporter.handlers import ENDPOINTS
from exporter.lake.lake import Lake
from exporter.lake.lists import LakeLists
from exporter.lake.upkeep import LakeUpkeep
from exporter.pipeline.sample_files import CallLimit
from exporter.pipeline.source import EventSource
from exporter.replays.replay import REPLAYS
from exporter.replays.replays import ExportReplays
from exporter.routes import ROUTES
from exporter.state import State
from shared.aws.clients import AwsClients
from shared.config.secret_keys import UnsignedError
from shared.contracts import streams
from shared.contracts.keys import LAKE_EXPORT, parse_replay_export
from shared.contracts.messages import Alert, encode
from shared.errors import InvalidError, NotFoundError
from shared.objects.app_reports import open_reports
from shared.service import Mesh, Service


def now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


async def build(mesh: Mesh) -> State:
    """Open every part. Exports that the last process left in the middle of a file continue at once."""
    exports = mesh.registry.view(EXPORTS)
    settings = mesh.settings_as(ExporterSettings)
    external_ids = ExternalIds(mesh.registry)
    aws = await mesh.enter(
        AwsClients(mesh.outgoing, ("s3", "sts"), sts_endpoint_url=mesh.settings.sts_endpoint_url or None)
    )
    platform = Platform(
        cluster=settings.exporter_cluster,
        zone=settings.exporter_zone,
        local_dir=settings.exporter_local_dir,
        allow_private=mesh.settings.allow_private_endpoints,
        open_reports=partial(open_reports, mesh.settings, mesh.outgoing),
        outgoing=mesh.outgoing,
        aws=aws,
        external_id=external_ids.of_app,
    )
    formats = formats_with(await mesh.enter(ParquetWorkers()))
    run_store = RunStore(mesh.bucket(streams.RUNS))

    lake_store = settings.lake_store
    source = EventSource(mesh.bus)
    plans = mesh.bucket(streams.PLANS)
    owner = secrets.token_hex(8)

    replays = ExportReplays(
        registry=mesh.registry,
        exports=exports,
        plans=plans,
        run_store=run_store,
        source=source,
        platform=platform,
        formats=formats,
        clock=now,
    )

    def lake_changed() -> None:
        scheduler.changed()

    lake = Lake(
        bus=mesh.bus,
        lists=LakeLists(mesh.bucket(streams.LAKE)),
        plans=plans,
        source=source,
        open_lake=lambda: lake_store.open(mesh.outgoing, FILE_LIMITS, guarded=False),
        location=settings.lake_location,
        parquet=formats["parquet"],
        clock=now,
        owner=owner,
        on_change=lake_changed,
        shards=settings.lake_shards,
        is_on=settings.exporter_lake,
    )

    def jobs() -> dict[Key, ExportJob]:
        configured = {
            (entry.app_key, entry.id): job_of(entry, platform, formats) for entry in exports.all() if entry.value.active
        }
        return configured | replays.jobs() | lake.jobs()

    async def is_deleted(key: Key) -> bool:
        if key[1] == LAKE_EXPORT:
            return await lake.is_gone(key[0])
        if parse_replay_export(key[1]):
            return await replays.is_deleted(key)
        if exports.get(*key) is not None:
            return False
        try:
            await mesh.registry.get(EXPORTS, *key)
        except NotFoundError:
            return True
        return False

    async def folder_of(owner: Owner) -> Folder | None:
        if parse_replay_export(owner[1]):
            return await replays.folder_of(owner)
        try:
            return (await mesh.registry.get(EXPORTS, *owner)).value.folder(owner[0])
        except NotFoundError:
            return None
        except (InvalidError, UnsignedError):
            # The last good configuration stays in use.
            good = exports.get(*owner)
            return good.value.folder(owner[0]) if good else None

    def configured_folders() -> dict[Owner, Folder]:
        configured = {(entry.app_key, entry.id): entry.value.folder(entry.app_key) for entry in exports.all()}
        return configured | replays.folders()

    folder_claims = FolderClaims(mesh.bucket(streams.CLAIMS), folder_of=folder_of, clock=now)
    await folder_claims.sync(configured_folders())
    mesh.spawn("folder claims", folder_claims.sync_hourly(configured_folders))

    async def publish_alert(alert: Alert) -> None:
        # One that is published again after a crash is the same, and the server keeps the first.
        await mesh.bus.alert(alert, message_id=hashlib.sha256(encode(alert)).hexdigest())

    scheduler: ExportScheduler = ExportScheduler(
        runner=ExportRunner(
            WriterDependencies(source=source, run_store=run_store, clock=now),
            owner=owner,
            publish_alert=publish_alert,
            metrics=mesh.metrics,
        ),
        plans=plans,
        metrics=mesh.metrics,
        jobs=jobs,
        is_deleted=is_deleted,
    )
    exports.on_change(scheduler.changed)
    replays.view.on_change(scheduler.changed)
    mesh.intake("exports", scheduler)
    mesh.spawn("exports", scheduler.run())

    async def lag(key: Key) -> ExportLag:
        return await lag_of(source, key[0], await LaneStore(plans, *key).load(), now())

    mesh.spawn("export lag", LagMeter(source, scheduler.cursors, now, mesh.metrics).run())
    if settings.exporter_lake:
        keep = timedelta(days=settings.exporter_lake_keep_days) if settings.exporter_lake_keep_days else None
        mesh.spawn("lake apps", lake.apps.run())
        mesh.spawn("lake upkeep", LakeUpkeep(lake.lists, lake.open, now, keep=keep).run())
    if mesh.settings.reports_keep_days:
        max_age = timedelta(days=mesh.settings.reports_keep_days)
        mesh.spawn("reports", remove_expired(partial(open_reports, mesh.settings, mesh.outgoing), max_age, now))
    return State(
        scheduler=scheduler,
        lake=lake,
        replays=replays,
        run_store=run_store,
        run_control=RunControl(run_store, plans, scheduler.nudge),
        registry=mesh.registry,
        exports=exports,
        platform=platform,
        folder_claims=folder_claims,
        external_ids=external_ids,
        own_accounts=OwnAccounts(aws),
        formats=formats,
        test_event_calls=CallLimit(now),
        lag_of=lag,
        clock=now,
    )


SERVICE = Service(
    name=SERVICE_NAME,
    build=build,
    routes=ROUTES,
    streams=(streams.EVENTS, streams.ALERTS),
    buckets=(streams.CONFIG, streams.RUNS, streams.PLANS, streams.LAKE, streams.CLAIMS),
    kinds=(EXPORTS, EXTERNAL_IDS, REPLAYS),
    endpoints=ENDPOINTS,
    settings=ExporterSettings,
)
