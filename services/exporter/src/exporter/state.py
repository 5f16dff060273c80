"""The result of `build`: the parts that routes and handlers call, and Test Connection, which both of them offer."""

import secrets
from typing import Any

from msgspec import Struct

from exporter.config import EXPORTS, Export
from exporter.destinations.connection_test import probe_store
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import PROBE_LIMITS
from exporter.exports.run_store import RunStore
from exporter.exports.scheduler import ExportScheduler
from exporter.lake.lake import Lake
from shared.config.registry import Registry, View
from shared.contracts.connection_report import ConnectionReport


class State(Struct, frozen=True, kw_only=True):
    """The running service."""

    scheduler: ExportScheduler
    lake: Lake
    run_store: RunStore
    registry: Registry
    exports: View[Export]
    platform: Platform

    async def test_connection(self, app_key: str, export_id: str, form: dict[str, Any]) -> ConnectionReport:
        """
        Test the destination of an export, saved or not.

        Raises:
            InvalidError: A field of the form is wrong; names it.
            NotFoundError: The form is empty and nothing is saved.
        """
        export = await self.registry.form_over_saved(EXPORTS, app_key, form, export_id)
        export.check(allow_private=self.platform.allow_private)
        folder, name = export.destination.folder, f".millrace-probe-{secrets.token_hex(8)}"
        return await probe_store(
            lambda: export.destination.open(app_key, self.platform, limits=PROBE_LIMITS),
            f"{folder}/{name}" if folder else name,
        )
