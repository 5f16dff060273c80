"""
Files of test events, in a folder `test=true` of their own and under names that no other file has.

They are built and written as the files of a window are. They are not deleted: an export may lack the right to it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from exporter.pipeline.ports import Destination, FileName, Format, Layout
from exporter.pipeline.window_builder import SECOND_NS, WindowBuilder
from shared.contracts.messages import Event, encode
from shared.errors import BusyError, UnavailableError
from shared.ids import make_ulid

FOLDER: Final = "test=true"
WRITE_S: Final = 60.0
"""The longest time for all files."""
MOST_CALLS: Final = 6
PERIOD_S: Final = 60.0
"""Calls of one app in a period, in one process."""


class SampleFile(Struct, frozen=True, kw_only=True):
    """A file of test events of one type, and the etag that the store gave for it, if it gave one."""

    type: str
    key: str
    rows: int
    size_bytes: int
    sha256: str
    etag: str


class SampleFiles(Struct, frozen=True, kw_only=True):
    """The files of one call."""

    files: tuple[SampleFile, ...]


class SampleMessage(Struct, frozen=True):
    """Test events as a message of the stream. Satisfies `EventMessage`."""

    data: bytes
    at_ns: int
    sequence: int = 0


class CallLimit:
    """A limit on the calls of each app, `MOST_CALLS` in `PERIOD_S`."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._calls: dict[str, deque[float]] = {}

    def take(self, app_key: str) -> None:
        """Count a call. Raises `BusyError` over the limit."""
        now = self._clock().timestamp()
        for one, calls in list(self._calls.items()):
            while calls and now - calls[0] >= PERIOD_S:
                calls.popleft()
            if not calls:
                del self._calls[one]
        calls = self._calls.setdefault(app_key, deque())
        if len(calls) >= MOST_CALLS:
            raise BusyError(
                f"expected at most {MOST_CALLS} calls in {PERIOD_S:.0f} s", retry_after_s=PERIOD_S - (now - calls[0])
            )
        calls.append(now)


async def write_samples(
    events: Sequence[Event], at: datetime, *, layout: Layout, form: Format, directory: str, destination: Destination
) -> SampleFiles:
    """
    Write test events, one file for each type.

    Raises:
        UnavailableError: The store did not take all files within `WRITE_S`.
        MillraceError: The store refused a file. Those before it are written.
    """
    window = WindowBuilder("test events", layout, form, limits=None)
    try:
        at_ns = int(at.timestamp()) * SECOND_NS
        await asyncio.to_thread(window.add, [SampleMessage(encode([event]), at_ns) for event in events])
        await asyncio.to_thread(window.finish)
        written = []
        async with asyncio.timeout(WRITE_S):
            for part, file in window.files.items():
                name = FileName(part=part, named_at=at.replace(microsecond=0), queued_at=at, first_sequence=0)
                key = sample_key(directory, layout.name(name) + form.suffix, make_ulid(int(at.timestamp() * 1000)))
                data = await asyncio.to_thread(file.read)
                etag = await destination.put(key, data, form.content_type)
                written.append(
                    SampleFile(
                        type=part,
                        key=key,
                        rows=file.rows,
                        size_bytes=file.size_bytes,
                        sha256=file.sha256,
                        etag=etag,
                    )
                )
        return SampleFiles(files=tuple(written))
    except TimeoutError:
        raise UnavailableError(f"the store did not accept the files within {WRITE_S:.0f} s") from None
    finally:
        window.close()


def sample_key(directory: str, name: str, ulid: str) -> str:
    """
    The key of a file of test events, whose usual name below the directory is `name`.

    The last part has the mark too: in `/reports` of ftp-gateway it is all that is left of the key but the directory.
    """
    folder, _, file = name.rpartition("/")
    return "/".join(part for part in (directory, FOLDER, folder, f"test-{ulid}-{file}") if part)
