"""The manifest of a window: the list of its files, for loaders that have to know when a window is whole. Pure."""

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

from exporter.exports.job import ExportJob
from exporter.exports.progress import PlannedFile, WindowPlan
from exporter.pipeline.lane import WHOLE, Lane

FOLDER: Final = "_manifest"
CONTENT_TYPE: Final = "application/json"


class ManifestEntry(Struct, frozen=True, kw_only=True):
    """A file of the window: its key in the bucket, the type of its rows, and the SHA-256 of its bytes as hex digits."""

    key: str
    type: str
    rows: int
    size_bytes: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A window that is whole: every file that it lists is stored.

    Its events lie between `first_sequence` and `last_sequence` of `EVENTS`, and are in no other window of the export.
    `types` are those of its rows, each once, sorted. `lane` is the part of the partitions that it was read from, where
    the export has several: windows of two lanes overlap in their sequences.
    """

    app_key: str
    export_id: str
    lane: Lane = WHOLE
    first_sequence: int
    last_sequence: int
    rows: int
    size_bytes: int
    types: tuple[str, ...]
    files: tuple[ManifestEntry, ...]


class ManifestObject(Struct, frozen=True, kw_only=True):
    """A manifest as an object to store."""

    planned: PlannedFile
    data: bytes

    @property
    def size_bytes(self) -> int:
        """The size of the object."""
        return len(self.data)

    def read(self) -> bytes:
        """The whole object."""
        return self.data


def manifest_of(job: ExportJob, plan: WindowPlan) -> ManifestObject | None:
    """The manifest of a planned window, the same bytes for the same plan. None where there is to be none."""
    if not plan.content.manifest or not plan.files:
        return None
    files = tuple(
        ManifestEntry(key=file.key, type=file.part, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)
        for file in plan.files
    )
    manifest = Manifest(
        app_key=job.app_key,
        export_id=job.export_id,
        lane=job.lane,
        first_sequence=plan.first_sequence,
        last_sequence=plan.last_sequence,
        rows=plan.rows_out,
        size_bytes=sum(file.size_bytes for file in files),
        types=tuple(sorted({file.type for file in files})),
        files=files,
    )
    data = msgspec.json.encode(manifest)
    # No other window of the export begins with this sequence.
    name = f"{FOLDER}/{plan.first_sequence:010}-{plan.last_sequence:010}.json"
    key = f"{job.directory}/{name}" if job.directory else name
    planned = PlannedFile(key=key, rows=0, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    return ManifestObject(planned=planned, data=data)
