"""
What is remembered of a remote in the bucket `REMOTES`: the files that are ours, how it goes, and the key that it
showed. Written by whoever has the turn to pull from the remote; the shown key also by Test Connection.
"""

from datetime import datetime

import structlog
from msgspec.structs import replace

from ftp_gateway.remotes.remote import OfferedHostKey
from ftp_gateway.remotes.state import PulledFile, PullProgress
from shared.contracts import keys
from shared.contracts.messages import decode, encode
from shared.errors import MillraceError
from shared.messaging.kv import KeyValueStore

log = structlog.get_logger()


class RemoteStateStore:
    """One remote's. `load` it before anything else is read; `taken` is by the name on the server."""

    def __init__(self, store: KeyValueStore, app_key: str, remote_id: str) -> None:
        self._store = store
        self._app_key = app_key
        self._remote_id = remote_id
        self._unsaved: set[str] = set()
        self.progress = PullProgress()
        self.pulled: dict[str, PulledFile] = {}

    async def load(self) -> None:
        """Raises `UnavailableError`."""
        self.progress = await self.read_progress()
        found = await self._store.scan(keys.pulled_file_keys(self._app_key, self._remote_id))
        self.pulled = {taken.name: taken for taken in (decode(stored.data, PulledFile) for stored in found)}
        self._unsaved.clear()

    async def put_pulled(self, file: PulledFile) -> None:
        """A file is ours. It is known at once; where NATS does not answer, it is stored by the next `save`."""
        self.pulled[file.name] = file
        self._unsaved.add(file.name)
        try:
            await self.save()
        except MillraceError as error:
            log.warning("pull_not_remembered", app_key=self._app_key, remote=self._remote_id, message=error.message)

    def count_pulled(self, size_bytes: int, now: datetime) -> None:
        """One more file was pulled. Stored with the next `note`."""
        self.progress = replace(
            self.progress,
            pulled_at=now,
            files_pulled=self.progress.files_pulled + 1,
            bytes_pulled=self.progress.bytes_pulled + size_bytes,
        )

    async def save(self) -> None:
        """Store what could not be stored before. Raises `UnavailableError`."""
        for name in list(self._unsaved):
            await self._store.put(keys.pulled_file_key(self._app_key, self._remote_id, name), encode(self.pulled[name]))
            self._unsaved.discard(name)

    async def delete_pulled(self, name: str) -> None:
        """Nothing on the server can be mistaken for this file any more. Raises `UnavailableError`."""
        await self._store.delete(keys.pulled_file_key(self._app_key, self._remote_id, name))
        self.pulled.pop(name, None)
        self._unsaved.discard(name)

    async def put_progress(self, progress: PullProgress) -> None:
        """How it goes. Raises `UnavailableError`."""
        self.progress = progress
        await self._store.put(keys.pull_progress_key(self._app_key, self._remote_id), encode(progress))

    async def read_progress(self) -> PullProgress:
        """How it goes, as whoever has the turn wrote it. Raises `UnavailableError`."""
        stored = await self._store.get(keys.pull_progress_key(self._app_key, self._remote_id))
        return decode(stored.data, PullProgress) if stored else PullProgress()

    async def put_offered(self, offered: OfferedHostKey) -> None:
        """The server shows a key that was not accepted. Raises `UnavailableError`."""
        await self._store.put(keys.offered_host_key_key(self._app_key, self._remote_id), encode(offered))

    async def read_offered(self) -> OfferedHostKey | None:
        """The key that the server showed last without having been accepted. Raises `UnavailableError`."""
        stored = await self._store.get(keys.offered_host_key_key(self._app_key, self._remote_id))
        return decode(stored.data, OfferedHostKey) if stored else None

    async def erase(self) -> None:
        """The remote is deleted. Raises `UnavailableError`."""
        for stored in await self._store.scan(keys.remote_keys(self._app_key, self._remote_id)):
            await self._store.delete(stored.key)
