"""Merging of a day's files into one. The same files give the same bytes."""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Final

from exporter.formats.parquet import ParquetWorkers
from exporter.formats.parquet.encoder import open_file_path
from exporter.formats.parquet.messages import MergeFiles
from exporter.lake.lists import LakeDay, LakeFile, lanes_in
from exporter.layouts.lake import day_folder, range_name
from shared.errors import MillraceError, NotFoundError
from shared.objects.store import ObjectStore

MERGED_BYTES: Final = 1 << 30
"""The most bytes that are made one file. A day of some 15 million events."""
MERGED_FILES: Final = 200
"""The most files that are held open; the rest of a day is merged with their result by the next pass."""
PIECE_BYTES: Final = 8 << 20
CONTENT_TYPE: Final = "application/vnd.apache.parquet"


def groups(files: tuple[LakeFile, ...]) -> Iterator[tuple[LakeFile, ...]]:
    """Neighbours that become one file, in their order. A file that stays alone is in none."""
    group: list[LakeFile] = []
    for file in files:
        if group and (
            len(group) == MERGED_FILES or sum(one.size_bytes for one in group) + file.size_bytes > MERGED_BYTES
        ):
            if len(group) > 1:
                yield tuple(group)
            group = []
        group.append(file)
    if len(group) > 1:
        yield tuple(group)


def merged_name(parts: tuple[LakeFile, ...]) -> str:
    """The name of the file that neighbours become: another than that of each of them."""
    name = range_name(parts[0].first_sequence, max(part.last_sequence for part in parts))
    # Ranges of lanes overlap, so one of the parts may have this range too. It has fewer rows.
    return f"{name}+all-{sum(part.rows for part in parts)}" if lanes_in(parts) else name


async def merge(store: ObjectStore, workers: ParquetWorkers, day: LakeDay, parts: tuple[LakeFile, ...]) -> LakeFile:
    """
    Store the rows of some files as one more file, which no list has yet.

    Raises:
        MillraceError: The store failed, or a row would be lost.
    """
    first, last = parts[0].first_sequence, max(part.last_sequence for part in parts)
    rows_in_parts = sum(part.rows for part in parts)
    key = f"{day_folder(day.app_key, day.type, day.date)}/{merged_name(parts)}.parquet"
    with ExitStack() as opened:
        files = []
        for part in parts:
            file = opened.enter_context(tempfile.TemporaryFile())
            await _fetch(store, part, file)
            files.append(open_file_path(file.fileno()))
        out = opened.enter_context(tempfile.TemporaryFile())
        rows = await workers.write(MergeFiles(tuple(files), open_file_path(out.fileno())))
        if rows != rows_in_parts:
            raise MillraceError(f"expected {rows_in_parts} rows in {key}, found {rows}")
        size_bytes = out.seek(0, 2)
        out.seek(0)
        if not await store.put_file_if_absent(key, out, content_type=CONTENT_TYPE):
            await _replace_if_other(store, key, out, size_bytes)
    return LakeFile(
        key=key, rows=rows, size_bytes=size_bytes, first_sequence=first, last_sequence=last, lanes=lanes_in(parts)
    )


async def _fetch(store: ObjectStore, part: LakeFile, file: IO[bytes]) -> None:
    for start in range(0, part.size_bytes, PIECE_BYTES):
        piece = await store.get_range(part.key, start, min(PIECE_BYTES, part.size_bytes - start))
        await asyncio.to_thread(file.write, piece)
    await asyncio.to_thread(file.flush)


async def _replace_if_other(store: ObjectStore, key: str, out: IO[bytes], size_bytes: int) -> None:
    """Another pass has stored the file and ended before it was listed: with other bytes only by another DuckDB."""
    digest, ours = hashlib.sha256(), hashlib.sha256()
    try:
        if (await store.head(key)).size_bytes == size_bytes:
            for start in range(0, size_bytes, PIECE_BYTES):
                digest.update(await store.get_range(key, start, min(PIECE_BYTES, size_bytes - start)))
    except NotFoundError:
        digest.update(b"none")
    out.seek(0)
    while piece := await asyncio.to_thread(out.read, PIECE_BYTES):
        ours.update(piece)
    if digest.digest() != ours.digest():
        out.seek(0)
        await store.delete(key)
        await store.put_file_if_absent(key, out, content_type=CONTENT_TYPE)
