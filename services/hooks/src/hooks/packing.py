"""
Several events of one user as one record of the target: it succeeds or fails as a whole, and keeps the order inside.

What one round trip carries for a user grows from one event to as many as wait, so a very active user needs it. Which
events are packed is told by their hook's `batch.format`; a pack that goes again is the same pack, so its repetition is
the receiver's to drop, event by event, as every other.
"""

from collections.abc import Iterable, Sequence

from hooks.delivery import FRAME_BYTES, Record


class Pack(Record):
    """Some records of one user and one hook, from the head of their lane on, under way as one."""

    __slots__ = ("events", "records")

    def __init__(self, records: Sequence[Record], data: bytes) -> None:
        head = records[0]
        super().__init__(
            key=head.key,
            data=data,
            hook_id=head.hook_id,
            source=head.source,
            tally=head.tally,
            done=_finish_all,
            batch=head.batch,
            max_bytes=head.max_bytes,
        )
        self.size -= FRAME_BYTES[head.batch.format]
        self.records = records
        self.events = len(records)
        self.attempts = head.attempts
        self.next = records[-1].next

    def take_apart(self) -> Record:
        """The first record again, with the rest behind it. None of them is packed with another any more."""
        for record in self.records:
            record.attempts = self.attempts
        self.records[-1].next = self.next
        return self.records[0]


def pack(head: Record, most_bytes: int) -> Pack:
    """
    The head of a lane, with what follows it of the same hook and fits. A record that was tried before goes alone: it
    was in a pack that was refused.
    """
    most_bytes = min(most_bytes, head.max_bytes)
    size = head.size
    records = [head]
    record = head.next
    while record is not None and not head.attempts:
        size += len(record.data) + 1
        if size > most_bytes or record.attempts or not _alike(head, record):
            break
        records.append(record)
        record = record.next
    if head.batch.format == "ndjson":
        return Pack(records, b"".join(record.data + b"\n" for record in records))
    return Pack(records, b"[" + b",".join(record.data for record in records) + b"]")


def unpack(records: Iterable[Record]) -> Iterable[Record]:
    """Every single record, those of packs in their order."""
    for record in records:
        if isinstance(record, Pack):
            yield from record.records
        else:
            yield record


def _alike(head: Record, record: Record) -> bool:
    return record.hook_id == head.hook_id and record.batch.format == head.batch.format


def _finish_all(pack: Record) -> None:
    assert isinstance(pack, Pack)
    for record in pack.records:
        record.done(record)
