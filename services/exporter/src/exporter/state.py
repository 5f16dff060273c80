"""The result of `build`: the parts that routes and handlers call, and Test Connection, which both of them offer."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct

from exporter.access.external_ids import ExternalIds
from exporter.access.policies import ExportPolicies, export_policies
from exporter.access.trust import OwnAccounts
from exporter.config.export import EXPORTS, Export, job_of, policy_parts
from exporter.destinations.connection_test import probe_store
from exporter.destinations.patience import probe_patiently
from exporter.destinations.platform import Platform
from exporter.destinations.store_destination import PROBE_LIMITS
from exporter.exports.run_store import RunStore
from exporter.exports.runs.lag import ExportLag
from exporter.exports.runs.run_control import RunControl
from exporter.exports.scheduler import ExportScheduler
from exporter.exports.worker import Key
from exporter.folders.claims import Owner
from exporter.folders.folder_claims import FolderClaims
from exporter.lake.lake import Lake
from exporter.layouts.samples import sample_events
from exporter.pipeline.ports import Format
from exporter.pipeline.sample_files import CallLimit, SampleFiles, write_samples
from exporter.replays.replay import ReplayRequest, ReplayStatus
from exporter.replays.replays import ExportReplays
from shared.config.registry import ConfigEntry, Registry, View
from shared.contracts.connection_report import ConnectionFailedError, ConnectionReport
from shared.errors import MillraceError

log = structlog.get_logger()


class State(Struct, frozen=True, kw_only=True):
    """The running service."""

    scheduler: ExportScheduler
    lake: Lake
    replays: ExportReplays
    run_store: RunStore
    run_control: RunControl
    registry: Registry
    exports: View[Export]
    platform: Platform
    folder_claims: FolderClaims
    external_ids: ExternalIds
    own_accounts: OwnAccounts
    formats: Mapping[str, Format]
    test_event_calls: CallLimit
    lag_of: Callable[[Key], Awaitable[ExportLag]]
    clock: Callable[[], datetime]

    async def send_test_events(self, app_key: str, export_id: str, *, is_operator: bool) -> SampleFiles:
        """
        Write one test event of each type that a saved export has chosen, as its own files are written.

        Raises:
            DeniedError: It is a local one, which is for operators.
            NotFoundError: There is no such export.
            BusyError: The app has called too often.
            MillraceError: The destination refused a file.
        """
        entry = await self.registry.get(EXPORTS, app_key, export_id)
        entry.value.check_token(is_operator=is_operator)
        self.test_event_calls.take(app_key)
        job, now = job_of(entry, self.platform, self.formats), self.clock()
        events = sample_events(job.content.selection, app_key, int(now.timestamp() * 1000))
        async with job.open_destination() as destination:
            return await write_samples(
                events,
                now,
                layout=job.layout_of(job.content),
                form=job.format_of(job.content),
                directory=job.directory,
                destination=destination,
            )

    async def test_connection(
        self, app_key: str, export_id: str, form: dict[str, Any], *, is_operator: bool
    ) -> ConnectionReport:
        """
        Test the destination of an export, saved or not. Where the saved one passes, an export that fails is woken.

        Raises:
            DeniedError: It is a local one, which is for operators.
            InvalidError: A field of the form is wrong; names it.
            NotFoundError: The form is empty and nothing is saved.
        """
        export = await self.registry.form_over_saved(EXPORTS, app_key, form, export_id)
        export.check_token(is_operator=is_operator)
        export.check(allow_private=self.platform.allow_private)
        report = await self._probe(app_key, export)
        if report.status != "failed":
            await self._wake_if_saved(app_key, export_id, export)
        return report

    async def _wake_if_saved(self, app_key: str, export_id: str, tested: Export) -> None:
        """Let a failing export try now, where it is its own destination that passed."""
        try:
            saved = (await self.registry.get(EXPORTS, app_key, export_id)).value
            if saved.destination == tested.destination:
                await self.scheduler.wake((app_key, export_id))
        except MillraceError as error:
            # The export tries again by itself, and the report is what was asked for.
            log.warning("export_not_woken", app_key=app_key, export=export_id, message=error.message)

    async def policies(self, app_key: str, export_id: str, form: dict[str, Any]) -> ExportPolicies:
        """
        The least policies for an export, saved or not; the form needs neither keys nor a role yet.

        Raises:
            InvalidError: A field of the form is wrong, or it has no bucket of S3; names the field.
            NotFoundError: The form is empty and nothing is saved.
        """
        export = await self.registry.form_over_saved(EXPORTS, app_key, form, export_id)
        parts = policy_parts(app_key, export_id, export, await self.registry.list(EXPORTS, app_key))
        trust = await self.own_accounts.trust(await self.external_ids.of_app(app_key), export.s3.region)
        return ExportPolicies(
            policies=export_policies(export.s3.bucket, export.s3.region, parts),
            external_id=trust.external_id,
            aws_account=trust.aws_account,
            trust_policy=trust.trust_policy,
        )

    async def launch(self, owner: Owner, export: Export, old: Export | None, *, force: bool) -> None:
        """
        Test the destination of an export that is new or has another one, and claim its folder.

        Args:
            old: What is stored.
            force: Whether a destination that fails is taken all the same. Its claim then keeps no other app out.

        Raises:
            ConnectionFailedError: Test Connection failed; nothing was claimed.
            ConflictError: Another export has the folder, one in it or one around it.
        """
        folder = export.folder(owner[0])
        is_new = old is None or old.destination != export.destination
        if not is_new and (not export.active or await self.folder_claims.is_proven(owner, folder)):
            return
        await self.folder_claims.check_own(owner, folder)
        report = await probe_patiently(lambda: self._probe(owner[0], export))
        passed = report.status != "failed"
        if is_new and not passed and not force:
            raise ConnectionFailedError(report, field="destination")
        await self.folder_claims.take(owner, folder, proven=passed)

    async def start_replay(self, entry: ConfigEntry[Export], form: ReplayRequest) -> ReplayStatus:
        """Start a replay of an export. Raises what `ExportReplays.start` raises."""
        return await self.replays.start(entry, form, self.folder_claims, self._probe)

    async def _probe(self, app_key: str, export: Export) -> ConnectionReport:
        folder, kept = export.destination.folder, export.kept_probe
        name = f".millrace-probe-{kept or secrets.token_hex(8)}"
        return await probe_store(
            lambda: export.destination.open(app_key, self.platform, limits=PROBE_LIMITS),
            f"{folder}/{name}" if folder else name,
            before=await export.checks(app_key, self.platform),
            deletes=not kept,
        )
