"""
Packing of several events of one user as one record of the target, which succeeds or fails as a whole.

A packed record is one record of a call; a batch is the records of one call. With packing, a round trip carries all
waiting events of a user instead of one, in order, which a very active user needs. The hook's `batch.format` selects it.
A packed record that is sent again is the same, so its receiver can drop the repetition, event by event.
"""

from collections.abc import Iterable, Sequence

from hooks.delivery.model import Record, size_of


class PackedRecord(Record, kw_only=True, eq=False, gc=False):
    """Single records of one user and one hook, from the head of the user's queue on, sent as one record."""

    records: Sequence[Record]

    def split(self) -> Record:
        """Return the first record, with the rest queued behind it. None of them is packed again."""
        for record in self.records:
            record.attempts = self.attempts
        self.records[-1].next = self.next
        return self.records[0]


def pack(head: Record, most_bytes: int) -> PackedRecord:
    """
    Pack the head of a user's queue with the records behind it that are of the same hook and fit. A record that was
    tried before goes alone, because it was in a packed record that was refused.
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
    return PackedRecord(
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
    """Yield every single record, those of packed records in their order."""
    for record in records:
        if isinstance(record, PackedRecord):
            yield from record.records
        else:
            yield record


def _alike(head: Record, record: Record) -> bool:
    return record.hook_id == head.hook_id and record.batch.format == head.batch.format


def _finish_all(packed: Record) -> None:
    assert isinstance(packed, PackedRecord)
    for record in packed.records:
        record.done(record)
