"""
The user queues of one target, as linked records: the heads that are ready, and the batch of the next call. Sends
nothing.

A queue runs from its head to its tail. The head is ready, suspected, or elsewhere: in a call, or waiting for its
shard. Where hooks of one target batch differently, a call keeps to the smallest `max_records` and `max_bytes` of its
records.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from hooks.delivery.model import Failed, Outcome, Record, SinkLimits
from hooks.delivery.packing import PackedRecord, pack, unpack
from hooks.matching.hook import BatchSettings


class UserQueues:
    """User queues of one target. A head from `take_batch` ends by `requeue`, `suspect`, `confirm` or `finish`."""

    def __init__(self) -> None:
        self._tails: dict[str, Record] = {}
        self._suspects: deque[Record] = deque()
        self.ready: deque[Record] = deque()
        """Heads for the next calls, from the left."""

    def __bool__(self) -> bool:
        """Return whether any record is unfinished, here or in a call."""
        return bool(self._tails)

    @property
    def idle(self) -> bool:
        """Return whether no record is ready."""
        return not self.ready and not self._suspects

    def put(self, record: Record) -> bool:
        """Append to the user's queue. Returns True when that made another head ready."""
        tails, key = self._tails, record.key
        tail = tails.get(key)
        tails[key] = record
        if tail is not None:
            tail.next = record
            return False
        self.ready.append(record)
        return True

    def take_batch(self, limits: SinkLimits, hold_back: Callable[[Record], bool] | None) -> tuple[list[Record], bool]:
        """
        The records of the next call, and whether there was no room in it for more. A suspect goes alone.

        Args:
            hold_back: Called for every record, unless None; it keeps the records for which it returns True. The batch
                may become empty by it.
        """
        ready, most, room, size = self.ready, limits.call_records, limits.call_bytes, 0
        if self._suspects:
            ready, most = self._suspects, 1
        batch: list[Record] = []
        gathering: BatchSettings | None = None
        packs = False
        while ready:
            record = ready.popleft()
            if hold_back is not None and hold_back(record):
                continue
            if record.batch is not gathering:
                gathering = record.batch
                most, room = min(most, gathering.max_records), min(room, gathering.max_bytes)
                packs = gathering.format != "single"
            if packs and len(batch) < most and not isinstance(record, PackedRecord):
                record = self._pack(record, min(limits.record_bytes, gathering.max_bytes))
            size += record.size
            if len(batch) >= most or (size > room and batch):
                ready.appendleft(record)
                return batch, True
            record.attempts += 1
            batch.append(record)
        return batch, len(batch) >= most

    def confirm(self, batch: Sequence[Record], outcomes: Sequence[Outcome]) -> tuple[int, list[tuple[Record, Failed]]]:
        """Finish the stored records. Returns the number of their events, and the records that failed."""
        tails, ready = self._tails, self.ready
        failed: list[tuple[Record, Failed]] = []
        sent = 0
        for record, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Failed):
                failed.append((record, outcome))
                continue
            # As in `finish`: a call for every record would cost too much.
            following = record.next
            if following is None:
                del tails[record.key]
            else:
                ready.append(following)
            events = record.events
            sent += events
            record.counters.sent += events
            record.done(record)
        return sent, failed

    def finish(self, record: Record) -> None:
        """Finish a record; the one behind it is ready."""
        following = record.next
        if following is None:
            del self._tails[record.key]
        else:
            self.ready.append(following)
        record.done(record)

    def requeue(self, records: Sequence[Record]) -> None:
        """Put heads before all others."""
        self.ready.extendleft(reversed(records))

    def suspect(self, records: Iterable[Record]) -> None:
        """Mark records to be sent one by one: one of them, or of the only packed one, made the target refuse a call."""
        suspects = list(records)
        if len(suspects) == 1 and isinstance(suspects[0], PackedRecord):
            packed = suspects[0]
            if packed.next is None:
                self._tails[packed.key] = packed.records[-1]
            suspects = [packed.split()]
        self._suspects.extend(suspects)

    def clear(self) -> None:
        """Forget every record."""
        for held in (self._tails, self._suspects, self.ready):
            held.clear()

    def retain_only(self, in_calls: Iterable[Record]) -> None:
        """Forget every record but these heads, which are in flight."""
        self.clear()
        for head in in_calls:
            head.next = None
            self._tails[head.key] = head

    def all(self, outside: Iterable[Record]) -> list[Record]:
        """Every single record, each user's in order; `outside` are the heads that are not here."""
        return [record for head in (*outside, *self._suspects, *self.ready) for record in unpack(_linked(head))]

    def _pack(self, head: Record, most_bytes: int) -> PackedRecord:
        packed = pack(head, most_bytes)
        if packed.next is None:
            self._tails[packed.key] = packed
        return packed


def _linked(head: Record) -> Iterable[Record]:
    record: Record | None = head
    while record is not None:
        yield record
        record = record.next
