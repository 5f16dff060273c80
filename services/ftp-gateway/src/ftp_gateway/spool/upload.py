"""
One file that is here, and a customer's open handle on it. The catalogue of all of them is `shelf`.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from ftp_gateway.model.virtual_paths import COMPANIONS, Place, kind_of
from ftp_gateway.spool.upload_info import InfoFileName, State, UploadInfo
from shared.errors import ConflictError, TooLargeError

log = structlog.get_logger()

MAX_FILE_BYTES = 1 << 30


class Upload:
    """
    One file. `label` names its ticket on disk, and `state` is that of the ticket, or the one that is being written.
    `handle` is this process's handle on the bytes, with their lock, while it writes or processes them; `writers` counts
    what customers have open here, all of it by one `session`, and `broken` says that one of them went away without
    closing. `gone` files are on disk no more.
    """

    __slots__ = (
        "broken",
        "busy",
        "changed_at",
        "gone",
        "handle",
        "label",
        "session",
        "size_bytes",
        "state",
        "ticket",
        "told_partial",
        "writers",
    )

    def __init__(self, label: InfoFileName, ticket: UploadInfo, *, size_bytes: int, changed_at: datetime) -> None:
        self.label = label
        self.state: State = label.state
        self.ticket = ticket
        self.size_bytes = size_bytes
        self.changed_at = changed_at
        self.handle: int | None = None
        self.writers = 0
        self.session: object = None
        self.broken = label.state == "open"
        self.told_partial = False
        self.busy = False
        self.gone = False

    @property
    def id(self) -> str:
        return self.label.upload_id

    @property
    def place(self) -> Place:
        return self.ticket.place

    @property
    def changeable(self) -> bool:
        """Whether it still is its customer's."""
        return not self.gone and self.state in ("open", "closed")

    @property
    def waiting(self) -> bool:
        """Whether its bytes are here and not yet dealt with."""
        return not self.gone and self.state not in ("done", "report")

    @property
    def idle(self) -> bool:
        """Whether it waits for its customer: broken off, or closed under a name that is never processed."""
        if self.gone or self.busy or self.writers:
            return False
        return self.state == "open" or (self.state == "closed" and kind_of(self.place) is None)

    @property
    def unfinished(self) -> bool:
        """Whether its customer closed it under a name that is never processed, and may believe that it was."""
        if not self.idle or self.state == "open" or self.ticket.pulled:
            return False
        return not self.ticket.name.endswith(tuple(COMPANIONS.values()))

    @property
    def half_pulled(self) -> bool:
        """Whether it comes from a customer's own server and is not whole yet: ours, under a name that nobody gave."""
        return self.ticket.pulled and not self.ticket.committed

    def due_at(self, settle_s: float) -> datetime | None:
        """From when on it may be processed; None for what is no candidate."""
        if self.gone or self.busy or self.state in ("open", "done", "report"):
            return None
        if self.state == "closed" and kind_of(self.place) is None:
            return None
        if self.state != "closed" or self.ticket.committed:
            return self.changed_at
        return self.changed_at + timedelta(seconds=settle_s)

    def is_visible(self, now: datetime) -> bool:
        """Whether customers see it. One that is done stays for a while, because many clients look once more."""
        until = self.ticket.visible_until
        if self.gone or self.half_pulled:
            return False
        return self.state != "done" or (until is not None and until > now)

    def release(self) -> None:
        """Let the bytes and their lock go, if they are held."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


class Writer:
    """
    A customer's open handle on a file. `commit` or `abandon` ends it, once.

    Where another session has opened the file since, this handle is of no account any more: it writes nothing, and does
    not tell whether the file is complete. Its client is often gone without a word, and has come back as the other one.
    """

    def __init__(
        self,
        upload: Upload,
        *,
        clock: Callable[[], datetime],
        close: Callable[[Upload], Awaitable[None]],
        broke_off: Callable[[], None],
    ) -> None:
        assert upload.handle is not None
        self._handle = upload.handle
        self._clock = clock
        self._close = close
        self._broke_off = broke_off
        self._failed = False
        self._session = upload.session
        self.upload = upload
        upload.writers += 1

    def write(self, offset: int, data: bytes) -> int:
        """
        Raises `TooLargeError` beyond `MAX_FILE_BYTES`, also for a single byte at a huge offset, and `OSError`. Many a
        client closes the file all the same; it is a part from then on.
        """
        self._check_turn()
        if offset + len(data) > MAX_FILE_BYTES:
            self._failed = True
            raise TooLargeError(f"expected a file of at most {MAX_FILE_BYTES} bytes")
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._handle, memoryview(data)[written:], offset + written)
        except OSError as error:
            self._fail(error)
            raise
        self.upload.size_bytes = max(self.upload.size_bytes, offset + written)
        self.upload.changed_at = self._clock()
        return written

    def refuse(self) -> None:
        """A write was not let through to here: what is there is a part, also where the client closes it."""
        self._failed = True

    def read(self, offset: int, size: int) -> bytes:
        self._check_turn()
        return os.pread(self._handle, size, offset)

    def truncate(self, size: int) -> None:
        """Raises `TooLargeError` beyond `MAX_FILE_BYTES`."""
        self._check_turn()
        if size > MAX_FILE_BYTES:
            raise TooLargeError(f"expected a file of at most {MAX_FILE_BYTES} bytes")
        os.ftruncate(self._handle, size)
        self.upload.size_bytes = size
        self.upload.changed_at = self._clock()

    async def sync(self) -> None:
        """Bytes so far are durable when this returns."""
        self._check_turn()
        await asyncio.to_thread(os.fsync, self._handle)

    async def commit(self) -> None:
        """
        The client has closed the file: it is complete, unless another writer is there or went away.

        Raises:
            ConflictError: A write has failed before; what is there counts as broken off. Or another session goes on
                with the file.
            OSError: The disk failed; the same.
        """
        self._check_turn()
        try:
            if self._failed:
                raise ConflictError("a write has failed, so the file is not complete")
            self._stamp()
            await self.sync()
            self._check_turn()
        except BaseException as error:
            if isinstance(error, OSError):
                self._fail(error)
            self.abandon()
            raise
        self.upload.writers -= 1
        try:
            if self.upload.writers == 0 and not self.upload.broken:
                await self._close(self.upload)
        except BaseException:
            self.upload.broken = True
            raise
        finally:
            # Not before the ticket says that it is closed: until then, others would take it for a part.
            self._let_go()

    def abandon(self) -> None:
        """The client went away, or the disk failed: what is there is a part."""
        if self._overtaken:
            return
        with suppress(OSError):
            self._stamp()
        self.upload.writers -= 1
        self.upload.broken = True
        self._let_go()
        self._broke_off()

    def _fail(self, error: OSError) -> None:
        # A client has many writes on their way; an operator needs to know of the first that failed.
        if not self._failed:
            log.error("upload_not_written", app_key=self.upload.ticket.app_key, message=error.strerror)
        self._failed = True

    @property
    def _overtaken(self) -> bool:
        return self.upload.session is not self._session

    def _check_turn(self) -> None:
        if self._overtaken:
            raise ConflictError("another session goes on with the file")

    def _stamp(self) -> None:
        # By our clock, which is the one that files settle by, also after a restart and on another replica.
        at = self._clock().timestamp()
        os.utime(self._handle, (at, at))

    def _let_go(self) -> None:
        if self.upload.writers == 0:
            self.upload.release()
