"""
Room in the streams of rows: while one is over half full, the chunks that its reader has acknowledged are deleted.

A stream refuses more when it is full, and keeps messages for seven days. So rows that were read long ago would hold up
new files. The last chunk of each file stays: it is the resume point, and tells the same content for 24 hours.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from ftp_gateway.processing.publisher import PACK_CHUNKS, UPLOAD_ID
from shared.contracts.consumers import PROFILES_READER, PUSH_ENGINE_READER, DurableConsumer
from shared.errors import MillraceError
from shared.messaging.bus import Bus
from shared.messaging.consumer_state import consumer_state
from shared.messaging.fill import read_fill
from shared.messaging.streams import purge, subjects_in

log = structlog.get_logger()

READERS: Final = (PUSH_ENGINE_READER, PROFILES_READER)
EVERY_S: Final = 5.0
FILLED: Final = 0.5
"""Share of the limit from which on chunks are deleted. The alert of a filling stream begins at 0.8."""
ROOM: Final = 0.4
"""Share below which no more are."""


class StreamRoom:
    """Deletes chunks that were read. `uploads` names those that go on; `run` is a task for the service's life."""

    def __init__(self, bus: Bus, uploads: Callable[[], Collection[str]]) -> None:
        self._bus = bus
        self._uploads = uploads

    async def run(self) -> None:
        """Look at each stream, again and again."""
        while True:
            for reader in READERS:
                try:
                    await self.make(reader)
                except MillraceError as error:
                    log.warning("stream_room_failed", stream=reader.stream.name, code=error.code, message=error.message)
            await asyncio.sleep(EVERY_S)

    async def make(self, reader: DurableConsumer) -> int:
        """
        Delete chunks that the reader has acknowledged, file by file, until the stream has room.

        Returns:
            How many were deleted.

        Raises:
            NotFoundError: There is no such reader.
            UnavailableError: NATS does not answer. The next look goes on.
        """
        stream = reader.stream
        if (await read_fill(self._bus, stream.name)).share < FILLED:
            return 0
        floor = (await consumer_state(self._bus, stream.name, reader.name)).floor
        deleted = 0
        for subject, count in (await subjects_in(self._bus, stream, reader.subject)).items():
            if count > 1 and (found := await self._delete(reader, subject, floor)):
                deleted += found
                if (await read_fill(self._bus, stream.name)).share < ROOM:
                    break
        self._bus.metrics.count("millrace_read_chunks_deleted_total", deleted, stream=stream.name)
        log.info("read_chunks_deleted", stream=stream.name, chunks=deleted)
        return deleted

    async def _delete(self, reader: DurableConsumer, subject: str, floor: int) -> int:
        """
        Delete those of one file, unless its last message is no chunk: any user of NATS can put one there, and the
        resume point is before it (docs/adr/0027). Of an upload that goes on, a pack stays for the same reason.
        """
        last = await self._bus.last_message(reader.stream, subject)
        if last is None or (upload_id := last.headers.get(UPLOAD_ID)) is None:
            return 0
        kept = PACK_CHUNKS if upload_id in self._uploads() else 0
        return await purge(self._bus, reader.stream, subject, before_sequence=min(last.sequence - kept, floor + 1))
