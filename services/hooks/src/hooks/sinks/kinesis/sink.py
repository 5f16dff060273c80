"""
Send records to one stream by PutRecords.

Implementation: one PutRecords per batch, encoded here. The answer is positional: HTTP 200 with a code for each record
that failed. Retries nothing: `hooks.delivery.target_queue` does.
Considerations: a call holds 500 records and 10 MiB, but moto and older regions hold to 5 MiB. A record with its key
holds 1 MiB, the default of a hook's `max_record_bytes`, and up to 10 MiB where UpdateMaxRecordSize raised it. A timeout
may have stored the batch.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from hooks.delivery.model import Failed, Outcome, Record, Sent, SinkLimits
from hooks.sinks.kinesis.api import KinesisApi
from shared.errors import NotFoundError, UnavailableError

LIMITS: Final = SinkLimits(call_records=500, call_bytes=5 << 20, record_bytes=10 << 20)
"""Limits of PutRecords: the number in botocore's service model, the bytes as in *Considerations* above."""

CALL_S: Final = 15.0
"""Time limit of one call. The wait for a free connection has no limit of its own."""

THROTTLED: Final = frozenset({"ProvisionedThroughputExceededException", "KMSThrottlingException"})
"""Codes of records that are too many for their shard or its key (PutRecordsResultEntry; KMS quotas)."""

PUT_RECORDS: Final = "Kinesis_20131202.PutRecords"
PUT_RECORD: Final = "Kinesis_20131202.PutRecord"


class _Entry(Struct, frozen=True, gc=False):
    """PutRecordsRequestEntry; msgspec writes bytes as Base64, as the API wants them."""

    Data: bytes
    PartitionKey: str


class _PutRecords(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    StreamName: str = ""
    StreamARN: str = ""
    Records: list[_Entry]


class _PutRecord(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    StreamName: str = ""
    StreamARN: str = ""
    Data: bytes
    PartitionKey: str


class _Stored(Sent, frozen=True, gc=False):
    """Answer of PutRecord, and PutRecordsResultEntry where the record is stored."""

    shard: str = msgspec.field(name="ShardId")
    sequence: Annotated[str, Meta(min_length=1)] = msgspec.field(name="SequenceNumber")


class _ResultEntry(Struct, frozen=True, gc=False):
    """PutRecordsResultEntry."""

    SequenceNumber: str | None = None
    ShardId: str | None = None
    ErrorCode: str | None = None
    ErrorMessage: str | None = None


class _AllStored(Struct, frozen=True, gc=False):
    FailedRecordCount: Literal[0]
    Records: list[_Stored]


class _Answer(Struct, frozen=True, gc=False):
    Records: list[_ResultEntry]


_encoder = msgspec.json.Encoder()
_all_stored = msgspec.json.Decoder(_AllStored)
_answer = msgspec.json.Decoder(_Answer)
_stored = msgspec.json.Decoder(_Stored)


class KinesisSink:
    """One stream, by its name or its ARN. Satisfies `hooks.delivery.model.Sink`."""

    def __init__(self, api: KinesisApi, stream_name: str, call_s: float = CALL_S) -> None:
        self.limits = LIMITS
        self._api = api
        self._stream: Mapping[str, str] = {"StreamName": stream_name}
        self._misplaced: str | None = None
        self._call_s = call_s
        if stream_name.startswith("arn:"):
            self._stream = {"StreamARN": stream_name}
            region = stream_name.split(":")[3]
            if region != api.region:
                self._misplaced = f"the stream is in {region} by its ARN, and the connector in {api.region}"

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """See `hooks.delivery.model.Sink`."""
        return await self._put([_Entry(record.data, record.key) for record in batch])

    async def _put(self, entries: list["_Entry"]) -> Sequence[Outcome]:
        self._check_region()
        body = _encoder.encode(_PutRecords(Records=entries, **self._stream))
        try:
            async with asyncio.timeout(self._call_s):
                answer = await self._api.post(PUT_RECORDS, body)
        except TimeoutError:
            raise UnavailableError(f"Kinesis did not answer within {self._call_s:g} s") from None
        try:
            return _outcomes(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnavailableError("Kinesis answered with something else than PutRecords' answer") from None

    async def ping(self) -> None:
        await self.describe()

    async def describe(self) -> dict[str, Any]:
        """The answer of DescribeStreamSummary, which a key that may only write is denied."""
        answer = await self._call("describe_stream_summary", **self._stream)
        summary: dict[str, Any] = answer["StreamDescriptionSummary"]
        return summary

    async def put(self, key: str, data: bytes) -> Outcome:
        """One record by a PutRecords of its own. Raises as `send` does."""
        (outcome,) = await self._put([_Entry(data, key)])
        return outcome

    async def put_singly(self, key: str, data: bytes) -> Sent:
        """
        One record by PutRecord, which is another permission. The caller bounds the time.

        Raises:
            MillraceError: The record is not stored; as `send` raises.
        """
        self._check_region()
        body = _encoder.encode(_PutRecord(Data=data, PartitionKey=key, **self._stream))
        answer = await self._api.post(PUT_RECORD, body)
        try:
            return _stored.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnavailableError("Kinesis answered with something else than PutRecord's answer") from None

    def _check_region(self) -> None:
        # Kinesis answers with a code that stands for a bad record as well.
        if self._misplaced is not None:
            raise NotFoundError(self._misplaced)

    async def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        self._check_region()
        try:
            async with asyncio.timeout(self._call_s):
                return await self._api.call("kinesis", operation, **arguments)
        except TimeoutError:
            raise UnavailableError(f"Kinesis did not answer within {self._call_s:g} s") from None


def _outcomes(answer: bytes) -> Sequence[Outcome]:
    try:
        # Nearly every answer. A check of each record in Python would cost as much as decoding them all.
        return _all_stored.decode(answer).Records
    except msgspec.ValidationError:
        return [_outcome(entry) for entry in _answer.decode(answer).Records]


def _outcome(entry: "_ResultEntry") -> Outcome:
    if entry.ErrorCode:
        return Failed(entry.ErrorCode, entry.ErrorMessage or "", throttled=entry.ErrorCode in THROTTLED)
    if not entry.SequenceNumber:
        return Failed("NoSequenceNumber", "Kinesis returned neither a sequence number nor an error")
    return Sent(entry.ShardId or "", entry.SequenceNumber)
