"""
Send to a stream whose policy grants kinesis:PutRecord and not kinesis:PutRecords, as the platform's own guide asks of
its customers.

Configuration: nothing. PutRecords is tried first, with every new configuration, and every ten minutes while it is
denied.
Implementation: a batch holds one record of a user at most, so its PutRecord calls run side by side and each user's
order is kept. The result of each call is the outcome of its record. A failure that a retry cannot resolve stops the
calls that have not begun, and is raised where no record was stored.
Considerations: one call a record is slower and costs more CPU, so the operator is advised to change the policy. Where
PutRecord is denied too, the denial of PutRecords is raised.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from hooks.delivery.model import PAUSING, Failed, Outcome, Record, Sent
from hooks.sinks.kinesis.api import NOT_ALLOWED
from hooks.sinks.kinesis.sink import THROTTLED, KinesisSink
from hooks.sinks.port import Advise
from shared.aws.errors import aws_code
from shared.errors import DeniedError, InvalidError, MillraceError, TooLargeError, UnavailableError

AT_ONCE: Final = 64
"""PutRecord calls to one stream."""
RETRY_PUT_RECORDS_S: Final = 600.0
"""PutRecords is tried again after this time: a change of the policy is not announced to us."""
ADVICE: Final = (
    "records go one by one, because the policy grants kinesis:PutRecord and not kinesis:PutRecords, which is faster: "
    "grant kinesis:PutRecords"
)

Found = Sent | MillraceError


class PutRecordFallback:
    """One stream, by the calls that its policy allows. Satisfies `hooks.delivery.model.Sink`."""

    def __init__(self, sink: KinesisSink, advise: Advise, call_s: float, clock: Callable[[], float]) -> None:
        self.limits = sink.limits
        self._sink = sink
        self._advise = advise
        self._call_s = call_s
        self._clock = clock
        self._retry_at = 0.0
        self._allowed = False
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """See `hooks.delivery.model.Sink`."""
        if self._clock() < self._retry_at:
            return self._settle(await self._put_each(batch))
        try:
            outcomes = await self._sink.send(batch)
        except DeniedError as denied:
            if aws_code(denied) not in NOT_ALLOWED:
                raise
            return await self._fall_back(batch, denied)
        if not self._allowed:
            self._allowed = True
            self._advise(None)
        return outcomes

    async def ping(self) -> None:
        await self._sink.ping()

    async def _fall_back(self, batch: Sequence[Record], denied: DeniedError) -> Sequence[Outcome]:
        first = await self._put_each(batch[:1])
        if isinstance(first[0], DeniedError):
            raise denied
        if isinstance(first[0], MillraceError) and not _about_record(first[0]):
            raise first[0]  # It does not show whether PutRecord is allowed.
        self._retry_at = self._clock() + RETRY_PUT_RECORDS_S
        self._allowed = False
        self._advise(ADVICE)
        return self._settle(first + await self._put_each(batch[1:]))

    async def _put_each(self, batch: Sequence[Record]) -> list[Found]:
        """Send each record by its own PutRecord, all of them in the time of one call; returns the result of each."""
        found: list[Found] = [UnavailableError(f"Kinesis did not answer within {self._call_s:g} s")] * len(batch)
        pausing: list[MillraceError] = []

        async def put(place: int, record: Record) -> None:
            async with self._at_once:
                if pausing:
                    found[place] = pausing[0]
                    return
                try:
                    found[place] = await self._sink.put_singly(record.key, record.data)
                except MillraceError as error:
                    found[place] = error
                    if isinstance(error, PAUSING):
                        pausing.append(error)

        try:
            async with asyncio.timeout(self._call_s), asyncio.TaskGroup() as calls:
                for place, record in enumerate(batch):
                    calls.create_task(put(place, record))
        except TimeoutError:
            pass  # `found` already has an error for the calls without an answer.
        return found

    def _settle(self, found: Sequence[Found]) -> Sequence[Outcome]:
        failures = [one for one in found if not isinstance(one, Sent) and not _about_record(one)]
        pausing = [error for error in failures if isinstance(error, PAUSING)]
        if pausing:
            # The policy was changed, and may grant PutRecords now.
            self._retry_at = 0.0
        if len(failures) == len(found):
            raise (pausing or failures)[0]
        return [_outcome(one) for one in found]


def _about_record(error: MillraceError) -> bool:
    """Return whether PutRecords would report the error for a record, or its shard, and not for the call."""
    return isinstance(error, InvalidError | TooLargeError) or aws_code(error) in THROTTLED


def _outcome(found: Found) -> Outcome:
    if isinstance(found, Sent):
        return found
    refused = isinstance(found, InvalidError | TooLargeError)
    code = aws_code(found) or found.code
    return Failed(code, found.message, retryable=not refused, throttled=code in THROTTLED)
