"""
Several events of one user as one record of the target: it succeeds or fails as a whole, and keeps the order inside.

What one round trip carries for a user grows from one event to as many as wait, so a very active user needs it. Which
events are packed is told by their hook's `batch.format`; a pack that goes again is the same pack, so its repetition is
the receiver's to drop, event by event, as every other.
"""

from collections.abc import Iterable, Sequence

from hooks.delivery.model import Record, size_of


class RecordBatch(Record, kw_only=True, eq=False, gc=False):
    """Some records of one user and one hook, from the head of their lane on, under way as one."""

    records: Sequence[Record]

    def split(self) -> Record:
        """The first record again, with the rest behind it. None of them is packed with another any more."""
        for record in self.records:
            record.attempts = self.attempts
        self.records[-1].next = self.next
        return self.records[0]


def pack(head: Record, most_bytes: int) -> RecordBatch:
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
        data = b"".join(record.data + b"\n" for record in records)
    else:
        data = b"[" + b",".join(record.data for record in records) + b"]"
    return RecordBatch(
        key=head.key,
        data=data,
        size=size_of(head.key, data),
        hook_id=head.hook_id,
        source=head.source,
        counters=head.counters,
        done=_finish_all,
        batch=head.batch,
        max_bytes=head.max_bytes,
        attempts=head.attempts,
        next=records[-1].next,
        events=len(records),
        records=records,
    )


def unpack(records: Iterable[Record]) -> Iterable[Record]:
    """Every single record, those of packs in their order."""
    for record in records:
        if isinstance(record, RecordBatch):
            yield from record.records
        else:
            yield record


def _alike(head: Record, record: Record) -> bool:
    return record.hook_id == head.hook_id and record.batch.format == head.batch.format


def _finish_all(pack: Record) -> None:
    assert isinstance(pack, RecordBatch)
    for record in pack.records:
        record.done(record)
