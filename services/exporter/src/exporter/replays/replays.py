"""The replays of all apps as the service calls them: start, show, delete, and the jobs of those that there are."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from exporter.config.export import EXPORTS, Export
from exporter.destinations.platform import Platform
from exporter.exports.job import ExportJob
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress import ExportProgress
from exporter.exports.run_store import RunStore
from exporter.exports.worker import Key
from exporter.folders.claims import Folder, Owner
from exporter.folders.folder_claims import FIELD, FolderClaims
from exporter.pipeline.ports import Format
from exporter.pipeline.source import EventSource
from exporter.replays.ranges import span_of
from exporter.replays.replay import (
    REPLAYS,
    AppReplays,
    Replay,
    ReplayRequest,
    ReplayStatus,
    ReplayStatuses,
    is_over,
    replay_job,
    status_of,
)
from shared.config.registry import ConfigEntry, Registry, View
from shared.config.secret_keys import UnsignedError
from shared.contracts.connection_report import ConnectionFailedError, ConnectionReport
from shared.errors import ConflictError, InvalidError, NotFoundError
from shared.ids import make_ulid
from shared.messaging.kv import KeyValueStore

OF_AN_APP: Final = 50
"""The most replays that an app has, ended ones with them: each keeps its folder."""
ATTEMPTS: Final = 20
"""Removals in a row that others came before."""

Probe = Callable[[str, Export], Awaitable[ConnectionReport]]
"""Test Connection of an export of an app."""


class ExportReplays:
    """
    The replays of all apps. Methods raise `UnavailableError` while NATS does not answer.

    Args:
        exports: The exports as this process knows them.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        exports: View[Export],
        plans: KeyValueStore,
        run_store: RunStore,
        source: EventSource,
        platform: Platform,
        formats: Mapping[str, Format],
        clock: Callable[[], datetime],
    ) -> None:
        self._registry = registry
        self._exports = exports
        self._plans = plans
        self._run_store = run_store
        self._source = source
        self._platform = platform
        self._formats = formats
        self._clock = clock
        self.view: View[AppReplays] = registry.view(REPLAYS)

    def jobs(self) -> dict[Key, ExportJob]:
        """The job of every replay of an active export, ended ones with them."""
        found = {}
        for stored in self.view.all():
            for replay in stored.value.replays:
                entry = self._exports.get(stored.app_key, replay.export_id)
                if entry is not None and entry.value.active:
                    found[stored.app_key, replay.job_id] = replay_job(entry, replay, self._platform, self._formats)
        return found

    def folders(self) -> dict[Owner, Folder]:
        """The folder of every replay."""
        return {
            (stored.app_key, replay.job_id): replay.claimed
            for stored in self.view.all()
            for replay in stored.value.replays
            if self._exports.get(stored.app_key, replay.export_id) is not None
        }

    async def folder_of(self, owner: Owner) -> Folder | None:
        """The folder of a replay as it is stored, None where it or its export is deleted."""
        try:
            replay = await self._find(owner)
        except (InvalidError, UnsignedError):
            # The last good configuration stays in use.
            return self.folders().get(owner)
        return replay.claimed if replay is not None else None

    async def is_deleted(self, key: Key) -> bool:
        """Return whether a replay, or its export, is certainly deleted."""
        return await self._find(key) is None

    async def start(
        self, entry: ConfigEntry[Export], form: ReplayRequest, claims: FolderClaims, probe: Probe
    ) -> ReplayStatus:
        """
        Start a replay of an export: claim its folder, then store it.

        Raises:
            ConflictError: The export is not active, another replay of it has not ended, or a folder is in the way.
            InvalidError: The range is not in the stream, or the folder is none; names the field.
            ConnectionFailedError: Test Connection of the folder failed.
        """
        app_key, export_id = entry.app_key, entry.id
        if not entry.value.active:
            raise ConflictError("the export is not active")
        stored = await self._stored(app_key)
        await self._check_room(app_key, export_id, stored.value)
        export = await self._in_folder(entry, form.folder)
        delivered_to = await self._delivered_to(app_key, export_id)
        span = await span_of(self._source, form, delivered_to)
        now = self._clock()
        replay = Replay(
            id=make_ulid(int(now.timestamp() * 1000)),
            export_id=export_id,
            first_sequence=span.first_sequence,
            last_sequence=span.last_sequence,
            place=export.destination.place(app_key),
            folder=export.destination.folder,
            created_at=now,
        )
        owner = (app_key, replay.job_id)
        try:
            await claims.check_own(owner, replay.claimed)
            report = await probe(app_key, export)
            if report.status == "failed":
                raise ConnectionFailedError(report, field="folder")
            await claims.take(owner, replay.claimed, proven=True)
        except ConflictError as error:
            if error.field != FIELD:
                raise
            raise ConflictError(error.message, field="folder") from None
        value = AppReplays(replays=(*stored.value.replays, replay))
        try:
            await self._registry.put(REPLAYS, app_key, "", value, expect_revision=stored.revision)
        finally:
            await claims.settle(owner, [replay.claimed])
        return status_of(replay, None, None)

    async def show(self, app_key: str, export_id: str, replay_id: str) -> ReplayStatus:
        """A replay. Raises `NotFoundError`."""
        return await self._status(app_key, await self.find(app_key, export_id, replay_id))

    async def of_export(self, app_key: str, export_id: str) -> ReplayStatuses:
        """The replays of an export, the newest first."""
        replays = (await self._stored(app_key)).value.of(export_id)
        return ReplayStatuses(replays=tuple([await self._status(app_key, replay) for replay in reversed(replays)]))

    async def find(self, app_key: str, export_id: str, replay_id: str) -> Replay:
        """A replay as it is stored. Raises `NotFoundError`."""
        for replay in (await self._stored(app_key)).value.of(export_id):
            if replay.id == replay_id:
                return replay
        raise NotFoundError(f"there is no replay {replay_id}")

    async def remove(self, app_key: str, export_id: str, claims: FolderClaims, *, replay_id: str | None = None) -> None:
        """
        Delete a replay, or all of an export. One that is running ends at once; its files stay.

        Raises:
            ConflictError: Others change the replays of the app again and again.
        """
        for attempt in range(ATTEMPTS):
            stored = await self._stored(app_key)
            ended = [replay for replay in stored.value.of(export_id) if replay_id in (None, replay.id)]
            if not ended:
                return
            kept = tuple(replay for replay in stored.value.replays if replay not in ended)
            try:
                value = AppReplays(replays=kept)
                await self._registry.put(REPLAYS, app_key, "", value, expect_revision=stored.revision)
            except ConflictError:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            for replay in ended:
                await claims.settle((app_key, replay.job_id), [replay.claimed])
            return

    async def _check_room(self, app_key: str, export_id: str, stored: AppReplays) -> None:
        for replay in stored.of(export_id):
            progress = await self._found_progress(app_key, replay.job_id)
            if progress is None or not is_over(replay, progress):
                raise ConflictError(f"the replay {replay.id} of this export has not ended; delete it or wait for it")
        if len(stored.replays) >= OF_AN_APP:
            raise ConflictError(f"expected at most {OF_AN_APP} replays of an app; delete one that has ended")

    async def _in_folder(self, entry: ConfigEntry[Export], folder: str) -> Export:
        """The export with the folder in place of its own, checked as a form is."""
        shown = msgspec.json.decode(self._registry.secrets.encode_masked(entry.value.destination), type=dict[str, Any])
        form = {"destination": shown | {"directory": folder}}
        try:
            export = await self._registry.form_over_saved(EXPORTS, entry.app_key, form, entry.id)
            export.check(allow_private=self._platform.allow_private)
        except InvalidError as error:
            field = "folder" if error.field == FIELD else error.field
            raise InvalidError(error.message, field=field) from None
        if not folder.strip("/"):
            raise InvalidError("expected a folder of the replay's own", field="folder")
        return export

    async def _status(self, app_key: str, replay: Replay) -> ReplayStatus:
        progress = await self._found_progress(app_key, replay.job_id)
        runs = (await self._run_store.page(app_key, replay.job_id, limit=1)).runs
        return status_of(replay, progress, runs[0] if runs else None)

    async def _delivered_to(self, app_key: str, export_id: str) -> int:
        """The sequence up to which every lane of an export has delivered."""
        lanes = await LaneStore(self._plans, app_key, export_id).load()
        if not lanes:
            raise ConflictError("the export has not begun yet; try again in a moment")
        return min(progress.cursor for progress in lanes.values())

    async def _found_progress(self, app_key: str, job_id: str) -> ExportProgress | None:
        """The progress of a replay, which has one lane; None before it has begun."""
        lanes = await LaneStore(self._plans, app_key, job_id).load()
        return next(iter(lanes.values()), None)

    async def _find(self, key: Key) -> Replay | None:
        """The replay of a job, None where it or its export is deleted."""
        for replay in (await self._stored(key[0])).value.replays:
            if replay.job_id == key[1]:
                try:
                    await self._registry.get(EXPORTS, key[0], replay.export_id)
                except NotFoundError:
                    return None
                return replay
        return None

    async def _stored(self, app_key: str) -> ConfigEntry[AppReplays]:
        try:
            return await self._registry.get(REPLAYS, app_key)
        except NotFoundError:
            return ConfigEntry(app_key, "", AppReplays(), 0)
