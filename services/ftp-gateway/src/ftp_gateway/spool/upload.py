"""Upload: one file of the spool, and a customer's open handle on it. `directory_index` keeps all of them."""

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
    One file of the spool.

    `info_name` names its info file, and `state` is that of the info file, or the one being written. `handle` is this
    process's handle on the bytes, with their lock, while it writes or processes them. `writers` counts the open handles
    of customers here, all of one `session`. `interrupted` says that a client went away without closing. `deleted` files
    are no longer on disk.
    """

    __slots__ = (
        "busy",
        "changed_at",
        "deleted",
        "handle",
        "info",
        "info_name",
        "interrupted",
        "partial_published",
        "session",
        "size_bytes",
        "state",
        "writers",
    )

    def __init__(self, info_name: InfoFileName, info: UploadInfo, *, size_bytes: int, changed_at: datetime) -> None:
        self.info_name = info_name
        self.state: State = info_name.state
        self.info = info
        self.size_bytes = size_bytes
        self.changed_at = changed_at
        self.handle: int | None = None
        self.writers = 0
        self.session: object = None
        self.interrupted = info_name.state == "open"
        self.partial_published = False
        self.busy = False
        self.deleted = False

    @property
    def id(self) -> str:
        return self.info_name.upload_id

    @property
    def place(self) -> Place:
        return self.info.place

    @property
    def changeable(self) -> bool:
        """Return whether its customer may still change it."""
        return not self.deleted and self.state in ("open", "closed")

    @property
    def waiting(self) -> bool:
        """Return whether its bytes are here and not yet processed."""
        return not self.deleted and self.state not in ("done", "report")

    @property
    def idle(self) -> bool:
        """Return whether it waits for its customer: broken off, or closed under a name that is never processed."""
        if self.deleted or self.busy or self.writers:
            return False
        return self.state == "open" or (self.state == "closed" and kind_of(self.place) is None)

    @property
    def unfinished(self) -> bool:
        """Return whether its customer closed it under a name that is never processed, and may believe that it was."""
        if not self.idle or self.state == "open" or self.info.pulled:
            return False
        return not self.info.name.endswith(tuple(COMPANIONS.values()))

    @property
    def partly_pulled(self) -> bool:
        """Return whether it comes from a customer's own server and is not whole yet. Such a file has a name of ours."""
        return self.info.pulled and not self.info.committed

    def due_at(self, settle_s: float) -> datetime | None:
        """Return the moment from which it may be processed; None for a file that is no candidate."""
        if self.deleted or self.busy or self.state in ("open", "done", "report"):
            return None
        if self.state == "closed" and kind_of(self.place) is None:
            return None
        if self.state != "closed" or self.info.committed:
            return self.changed_at
        return self.changed_at + timedelta(seconds=settle_s)

    def is_visible(self, now: datetime) -> bool:
        """
        Return whether customers see it. A processed one stays visible for a while, because many clients look once more.
        """
        until = self.info.visible_until
        if self.deleted or self.partly_pulled:
            return False
        return self.state != "done" or (until is not None and until > now)

    def release(self) -> None:
        """Close the handle, and with it the lock, if it is held."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


class Writer:
    """
    A customer's open handle on a file. `commit` or `abandon` ends it, once.

    Once another session has opened the file, this handle is void: it writes nothing, and has no say in whether the file
    is complete. Often its client was cut off without a word and has come back as the other session.
    """

    def __init__(
        self,
        upload: Upload,
        *,
        clock: Callable[[], datetime],
        on_commit: Callable[[Upload], Awaitable[None]],
        on_abandon: Callable[[], None],
    ) -> None:
        assert upload.handle is not None
        self._handle = upload.handle
        self._clock = clock
        self._on_commit = on_commit
        self._on_abandon = on_abandon
        self._failed = False
        self._session = upload.session
        self.upload = upload
        upload.writers += 1

    def write(self, offset: int, data: bytes) -> int:
        """
        Write bytes at an offset, and return their number. A client often closes the file after an error; it counts as
        broken off.

        Raises:
            TooLargeError: Beyond `MAX_FILE_BYTES`, also for a single byte at a huge offset.
            OSError: The disk failed.
        """
        self._check_session()
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

    def mark_failed(self) -> None:
        """
        Record that a write was refused before it came here: the file counts as broken off, even if its client closes
        it.
        """
        self._failed = True

    def read(self, offset: int, size: int) -> bytes:
        self._check_session()
        return os.pread(self._handle, size, offset)

    def truncate(self, size: int) -> None:
        """Set the size. Raises `TooLargeError` beyond `MAX_FILE_BYTES`."""
        self._check_session()
        if size > MAX_FILE_BYTES:
            raise TooLargeError(f"expected a file of at most {MAX_FILE_BYTES} bytes")
        os.ftruncate(self._handle, size)
        self.upload.size_bytes = size
        self.upload.changed_at = self._clock()

    async def sync(self) -> None:
        """Make the bytes so far durable."""
        self._check_session()
        await asyncio.to_thread(os.fsync, self._handle)

    async def commit(self) -> None:
        """
        Complete the file, which its client has closed, unless another writer is open or went away.

        Raises:
            ConflictError: A write failed before, so the file counts as broken off. Or another session continues it.
            OSError: The disk failed, so the file counts as broken off.
        """
        self._check_session()
        try:
            if self._failed:
                raise ConflictError("a write has failed, so the file is not complete")
            self._set_modified_at()
            await self.sync()
            self._check_session()
        except BaseException as error:
            if isinstance(error, OSError):
                self._fail(error)
            self.abandon()
            raise
        self.upload.writers -= 1
        try:
            if self.upload.writers == 0 and not self.upload.interrupted:
                await self._on_commit(self.upload)
        except BaseException:
            self.upload.interrupted = True
            raise
        finally:
            # Not before the info file says that it is closed: until then, other replicas would take it for a part.
            self._release()

    def abandon(self) -> None:
        """End the handle without completing the file: the client went away, or the disk failed."""
        if self._superseded:
            return
        with suppress(OSError):
            self._set_modified_at()
        self.upload.writers -= 1
        self.upload.interrupted = True
        self._release()
        self._on_abandon()

    def _fail(self, error: OSError) -> None:
        # A client has many writes on their way. An operator needs to know of the first that failed.
        if not self._failed:
            log.error("upload_write_failed", app_key=self.upload.info.app_key, message=error.strerror)
        self._failed = True

    @property
    def _superseded(self) -> bool:
        return self.upload.session is not self._session

    def _check_session(self) -> None:
        if self._superseded:
            raise ConflictError("another session goes on with the file")

    def _set_modified_at(self) -> None:
        # By our clock, by which files settle, also after a restart and on another replica.
        at = self._clock().timestamp()
        os.utime(self._handle, (at, at))

    def _release(self) -> None:
        if self.upload.writers == 0:
            self.upload.release()
