"""Writing of the checkpoints of one partition's backlogs, as one owner of the partition."""

import secrets

import structlog

from hooks.backlog.backlog import Backlog
from hooks.backlog.checkpoints import Checkpoints, StoredCheckpoint
from shared.errors import ConflictError

log = structlog.get_logger()


class CheckpointWriter:
    """
    Writer of the checkpoints of one partition. Every method raises `UnavailableError` when NATS does not answer.

    A conflict raises nothing: it means that the partition has another owner, which delivers these events.
    """

    def __init__(self, checkpoints: Checkpoints, partition: int) -> None:
        self._checkpoints = checkpoints
        self._partition = partition
        self._owner = secrets.token_hex(8)

    async def take_over(self) -> list[StoredCheckpoint]:
        """Read the checkpoints of an earlier owner, and write them again as this owner's."""
        return await self._checkpoints.take_over(self._partition, self._owner)

    async def put(self, backlog: Backlog) -> bool:
        """Write a checkpoint. Returns False when the partition has another owner."""
        checkpoint = backlog.checkpoint(self._owner)
        try:
            backlog.revision = await self._checkpoints.put(backlog.key, checkpoint, backlog.revision)
        except ConflictError as error:
            log.warning("checkpoint_owner_changed", message=error.message)
            return False
        backlog.written = checkpoint
        return True

    async def put_if_moved(self, backlog: Backlog) -> bool:
        """Write a checkpoint whose start or hooks differ from what was written last."""
        checkpoint, written = backlog.checkpoint(self._owner), backlog.written
        if written is not None and (written.start, {*written.hooks}) == (checkpoint.start, {*checkpoint.hooks}):
            return True
        return await self.put(backlog)

    async def delete(self, backlog: Backlog) -> None:
        """Delete the checkpoint of a finished backlog, unless the partition has another owner."""
        try:
            if backlog.revision:
                await self._checkpoints.delete(backlog.key, self._owner, backlog.revision)
        except ConflictError as error:
            log.warning("checkpoint_owner_changed", message=error.message)
