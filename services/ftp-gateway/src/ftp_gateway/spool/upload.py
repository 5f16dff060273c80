"""
One file that is here, and a customer's open handle on it. The catalogue of all of them is `spool.directory_index`.
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
    One file. `info_name` names its info on disk, and `state` is that of the info, or the one that is being written.
    `handle` is this process's handle on the bytes, with their lock, while it writes or processes them; `writers` counts
    what customers have open here, all of it by one `session`, and `interrupted` says that one of them went away without
    closing. `deleted` files are on disk no more.
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
        """Whether it still is its customer's."""
        return not self.deleted and self.state in ("open", "closed")

    @property
    def waiting(self) -> bool:
        """Whether its bytes are here and not yet dealt with."""
        return not self.deleted and self.state not in ("done", "report")

    @property
    def idle(self) -> bool:
        """Whether it waits for its customer: broken off, or closed under a name that is never processed."""
        if self.deleted or self.busy or self.writers:
            return False
        return self.state == "open" or (self.state == "closed" and kind_of(self.place) is None)

    @property
    def unfinished(self) -> bool:
        """Whether its customer closed it under a name that is never processed, and may believe that it was."""
        if not self.idle or self.state == "open" or self.info.pulled:
            return False
        return not self.info.name.endswith(tuple(COMPANIONS.values()))

    @property
    def partly_pulled(self) -> bool:
        """Whether it comes from a customer's own server and is not whole yet: ours, under a name that nobody gave."""
        return self.info.pulled and not self.info.committed

    def due_at(self, settle_s: float) -> datetime | None:
        """From when on it may be processed; None for what is no candidate."""
        if self.deleted or self.busy or self.state in ("open", "done", "report"):
            return None
        if self.state == "closed" and kind_of(self.place) is None:
            return None
        if self.state != "closed" or self.info.committed:
            return self.changed_at
        return self.changed_at + timedelta(seconds=settle_s)

    def is_visible(self, now: datetime) -> bool:
        """Whether customers see it. One that is done stays for a while, because many clients look once more."""
        until = self.info.visible_until
        if self.deleted or self.partly_pulled:
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
        Raises `TooLargeError` beyond `MAX_FILE_BYTES`, also for a single byte at a huge offset, and `OSError`. Many a
        client closes the file all the same; it is a part from then on.
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
        """A write was not let through to here: what is there is a part, also where the client closes it."""
        self._failed = True

    def read(self, offset: int, size: int) -> bytes:
        self._check_session()
        return os.pread(self._handle, size, offset)

    def truncate(self, size: int) -> None:
        """Raises `TooLargeError` beyond `MAX_FILE_BYTES`."""
        self._check_session()
        if size > MAX_FILE_BYTES:
            raise TooLargeError(f"expected a file of at most {MAX_FILE_BYTES} bytes")
        os.ftruncate(self._handle, size)
        self.upload.size_bytes = size
        self.upload.changed_at = self._clock()

    async def sync(self) -> None:
        """Bytes so far are durable when this returns."""
        self._check_session()
        await asyncio.to_thread(os.fsync, self._handle)

    async def commit(self) -> None:
        """
        The client has closed the file: it is complete, unless another writer is there or went away.

        Raises:
            ConflictError: A write has failed before; what is there counts as broken off. Or another session goes on
                with the file.
            OSError: The disk failed; the same.
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
            # Not before the info says that it is closed: until then, others would take it for a part.
            self._release()

    def abandon(self) -> None:
        """The client went away, or the disk failed: what is there is a part."""
        if self._superseded:
            return
        with suppress(OSError):
            self._set_modified_at()
        self.upload.writers -= 1
        self.upload.interrupted = True
        self._release()
        self._on_abandon()

    def _fail(self, error: OSError) -> None:
        # A client has many writes on their way; an operator needs to know of the first that failed.
        if not self._failed:
            log.error("upload_not_written", app_key=self.upload.info.app_key, message=error.strerror)
        self._failed = True

    @property
    def _superseded(self) -> bool:
        return self.upload.session is not self._session

    def _check_session(self) -> None:
        if self._superseded:
            raise ConflictError("another session goes on with the file")

    def _set_modified_at(self) -> None:
        # By our clock, which is the one that files settle by, also after a restart and on another replica.
        at = self._clock().timestamp()
        os.utime(self._handle, (at, at))

    def _release(self) -> None:
        if self.upload.writers == 0:
            self.upload.release()
