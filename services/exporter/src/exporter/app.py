"""
Construction of the exporter service: its parts, in the order of their dependencies. It holds no rules; nothing is
constructed elsewhere.
"""

import secrets
from datetime import UTC, datetime, timedelta
from functools import partial

from exporter import SERVICE_NAME
from exporter.config import EXPORTS, ExporterSettings, job_of
from exporter.destinations.platform import Platform
from exporter.destinations.retention import remove_expired
from exporter.exports.job import ExportJob
from exporter.exports.run_store import RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.scheduler import ExportScheduler
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import Key
from exporter.formats import formats_with
from exporter.formats.parquet import ParquetWorkers
from exporter.handlers import ENDPOINTS
from exporter.pipeline.source import EventSource
from exporter.routes import ROUTES
from exporter.state import State
from shared.contracts import streams
from shared.errors import NotFoundError
from shared.objects.app_reports import open_reports
from shared.service import Mesh, Service


def now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


async def build(mesh: Mesh) -> State:
    """Open every part. Exports that the last process left in the middle of a file continue at once."""
    exports = mesh.registry.view(EXPORTS)
    settings = mesh.settings_as(ExporterSettings)
    platform = Platform(
        cluster=settings.exporter_cluster,
        zone=settings.exporter_zone,
        allow_private=mesh.settings.allow_private_endpoints,
        open_reports=partial(open_reports, mesh.settings, mesh.outgoing),
        outgoing=mesh.outgoing,
    )
    formats = formats_with(await mesh.enter(ParquetWorkers()))
    run_store = RunStore(mesh.bucket(streams.RUNS))

    def jobs() -> dict[Key, ExportJob]:
        return {
            (entry.app_key, entry.id): job_of(entry, platform, formats) for entry in exports.all() if entry.value.active
        }

    async def is_deleted(key: Key) -> bool:
        if exports.get(*key) is not None:
            return False
        try:
            await mesh.registry.get(EXPORTS, *key)
        except NotFoundError:
            return True
        return False

    scheduler = ExportScheduler(
        runner=ExportRunner(
            WriterDependencies(source=EventSource(mesh.bus), run_store=run_store, clock=now),
            owner=secrets.token_hex(8),
            publish_alert=mesh.bus.alert,
            metrics=mesh.metrics,
        ),
        plans=mesh.bucket(streams.PLANS),
        metrics=mesh.metrics,
        jobs=jobs,
        is_deleted=is_deleted,
    )
    exports.on_change(scheduler.changed)
    mesh.intake("exports", scheduler)
    mesh.spawn("exports", scheduler.run())
    if mesh.settings.reports_keep_days:
        max_age = timedelta(days=mesh.settings.reports_keep_days)
        mesh.spawn("reports", remove_expired(partial(open_reports, mesh.settings, mesh.outgoing), max_age, now))
    return State(
        scheduler=scheduler,
        run_store=run_store,
        registry=mesh.registry,
        exports=exports,
        platform=platform,
    )


SERVICE = Service(
    name=SERVICE_NAME,
    build=build,
    routes=ROUTES,
    streams=(streams.EVENTS, streams.ALERTS),
    buckets=(streams.CONFIG, streams.RUNS, streams.PLANS),
    kinds=(EXPORTS,),
    endpoints=ENDPOINTS,
    settings=ExporterSettings,
)
