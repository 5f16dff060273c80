"""
Stored state of a remote, in the bucket `REMOTES`: pulled files, progress, and the host key that the server offered.

Written by the replica that holds the remote's lock; the offered key also by Test Connection.
"""

from datetime import datetime

import structlog
from msgspec.structs import replace

from ftp_gateway.remotes.remote import OfferedHostKey
from ftp_gateway.remotes.state import PulledFile, PullProgress
from shared.contracts import keys
from shared.contracts.messages import encode
from shared.errors import MillraceError
from shared.messaging.kv import KeyValueStore

log = structlog.get_logger()


class RemoteStateStore:
    """State of one remote. `load` comes first; `pulled` is keyed by the name on the server."""

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
        files = (self._store.decoded(stored.key, stored.data, PulledFile) for stored in found)
        self.pulled = {file.name: file for file in files if file is not None}
        self._unsaved.clear()

    async def put_pulled(self, file: PulledFile) -> None:
        """Note a pulled file. It is known at once; where NATS does not answer, the next `save` stores it."""
        self.pulled[file.name] = file
        self._unsaved.add(file.name)
        try:
            await self.save()
        except MillraceError as error:
            log.warning(
                "pulled_file_store_failed", app_key=self._app_key, remote=self._remote_id, message=error.message
            )

    def count_pulled(self, size_bytes: int, now: datetime) -> None:
        """Count a pulled file. The next `put_progress` stores the count."""
        self.progress = replace(
            self.progress,
            pulled_at=now,
            files_pulled=self.progress.files_pulled + 1,
            bytes_pulled=self.progress.bytes_pulled + size_bytes,
        )

    async def save(self) -> None:
        """Store the files that could not be stored before. Raises `UnavailableError`."""
        for name in list(self._unsaved):
            await self._store.put(keys.pulled_file_key(self._app_key, self._remote_id, name), encode(self.pulled[name]))
            self._unsaved.discard(name)

    async def delete_pulled(self, name: str) -> None:
        """Delete a file that nothing on the server can be mistaken for. Raises `UnavailableError`."""
        await self._store.delete(keys.pulled_file_key(self._app_key, self._remote_id, name))
        self.pulled.pop(name, None)
        self._unsaved.discard(name)

    async def put_progress(self, progress: PullProgress) -> None:
        """Store the progress. Raises `UnavailableError`."""
        self.progress = progress
        await self._store.put(keys.pull_progress_key(self._app_key, self._remote_id), encode(progress))

    async def read_progress(self) -> PullProgress:
        """Return the progress that the replica with the lock has stored. Raises `UnavailableError`."""
        stored = await self._store.get(keys.pull_progress_key(self._app_key, self._remote_id))
        progress = self._store.decoded(stored.key, stored.data, PullProgress) if stored else None
        return progress or PullProgress()

    async def put_offered(self, offered: OfferedHostKey) -> None:
        """Store a host key that the server showed and that is not accepted. Raises `UnavailableError`."""
        await self._store.put(keys.offered_host_key_key(self._app_key, self._remote_id), encode(offered))

    async def read_offered(self) -> OfferedHostKey | None:
        """Return the last host key that the server showed and that is not accepted. Raises `UnavailableError`."""
        stored = await self._store.get(keys.offered_host_key_key(self._app_key, self._remote_id))
        return self._store.decoded(stored.key, stored.data, OfferedHostKey) if stored else None

    async def erase(self) -> None:
        """Delete all state of a deleted remote. Raises `UnavailableError`."""
        for stored in await self._store.scan(keys.remote_keys(self._app_key, self._remote_id)):
            await self._store.delete(stored.key)
