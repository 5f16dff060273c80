"""
Amazon Kinesis by its API reference, in this process and on a port of its own, with faults on demand. moto knows
no partial failure and holds to old limits. No test lives here.

Streams are split into shards by ranges of the MD5 of the partition key. What is stored is read back by `records`, or by
a client through GetShardIterator and GetRecords. STS answers GetCallerIdentity, as the same endpoint does in moto.
"""

import asyncio
import base64
import hashlib
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Literal, Self

import msgspec
from aiohttp import web
from msgspec import Struct

CallFault = Literal[
    "none",
    "internal",
    "unavailable",
    "throttled",
    "limited",
    "slow_down",
    "validation",
    "denied",
    "expired",
    "unknown_key",
    "closed",
    "hanging",
    "late",
    "dropped",
    "short",
    "long",
]
"""
Fault of a whole PutRecords or PutRecord call. `hanging` stores nothing and never answers, `late` stores and
never answers (a success after our timeout), `closed` stores nothing and drops the connection, `dropped` stores and
drops it, `short` and `long` store and answer with a record too few or too many.
"""

REFUSALS: dict[str, tuple[int, str]] = {
    "internal": (500, "InternalFailureException"),
    "unavailable": (503, "ServiceUnavailable"),
    "throttled": (400, "ProvisionedThroughputExceededException"),
    "limited": (400, "LimitExceededException"),
    "slow_down": (400, "ThrottlingException"),
    "validation": (400, "ValidationException"),
    "denied": (400, "AccessDeniedException"),
    "expired": (400, "ExpiredTokenException"),
    "unknown_key": (400, "UnrecognizedClientException"),
}
IDENTITY = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::123456789012:user/writer</Arn><UserId>AIDAEXAMPLE</UserId><Account>123456789012</Account>
</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""
STS_REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{}</Code><Message>The security token included in the request is invalid.</Message></Error>
<RequestId>1</RequestId></ErrorResponse>"""


class Stored(Struct, frozen=True, kw_only=True):
    """A record in a shard."""

    shard: str
    sequence: int
    key: str
    data: bytes

    @property
    def value(self) -> Any:
        return msgspec.json.decode(self.data)


class Shard(Struct, kw_only=True):
    """A range of hash keys, `first` to `last`, and its stored records. A split one is closed, and keeps it."""

    name: str
    first: int
    last: int
    open: bool = True
    records: list[Stored] = []
    second: int = 0
    second_records: int = 0
    second_bytes: int = 0
    """Bytes stored in the second of the clock that `second` names."""


class FaultyKinesis:
    """
    The server, as an async context manager.

    `call_faults` are used up one per call that puts. `record_failure_rate` fails single records at random, and
    `fails_record` those that a test picks; `failing_streams` has rates for single streams. `shard_records_per_s` and
    `shard_bytes_per_s` limit a shard where a test sets them; Kinesis has 1,000 records and 1 MiB. `denied_operations`,
    and any on `denied_streams`, are refused for want of permission, and no operation is answered for keys that are not
    in `known_keys`, if any are. Keys in `ended_keys` are refused as `ended_as`. `keys_seen` has the id of each call,
    `arns_seen` the streams that were named by ARN.
    """

    def __init__(self, *, seed: int = 0, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.call_faults: deque[CallFault] = deque()
        self.record_failure_rate = 0.0
        self.record_failure_code = "ProvisionedThroughputExceededException"
        self.fails_record: Callable[[str, bytes], bool] | None = None
        self.shard_records_per_s: int | None = None
        self.shard_bytes_per_s: int | None = None
        self.denied_operations: set[str] = set()
        self.denied_streams: set[str] = set()
        self.failing_streams: dict[str, float] = {}
        self.known_keys: set[str] = set()
        self.ended_keys: set[str] = set()
        self.ended_as = "expired"
        self.keys_seen: list[str] = []
        self.arns_seen: set[str] = set()
        self.calls = 0
        self.failed_records = 0
        self.most_at_once = 0
        self.url = ""
        self._dice = random.Random(seed)
        self._streams: dict[str, list[Shard]] = {}
        self._arrived: dict[str, list[Stored]] = {}
        # Sequence numbers of Kinesis have 56 digits: they must never become floats.
        self._sequence = count(49590338271490256608559692538361571095921575989136588898)
        self._at_once = 0
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, after `stop` on the port that it had and with everything that was stored."""
        self._stopped.clear()
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/", self._handle)
        # A connection that hangs must not hold up the end of a test.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Take no more connections and break those off that there are, whatever they wait for."""
        self._stopped.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def create_stream(self, name: str, *, shards: int = 1) -> None:
        """An active stream whose shards share the range of hash keys evenly."""
        self._arrived[name] = []
        bounds = [(1 << 128) * place // shards for place in range(shards + 1)]
        self._streams[name] = [
            Shard(name=f"shardId-{place:012d}", first=bounds[place], last=bounds[place + 1] - 1)
            for place in range(shards)
        ]

    def split(self, stream: str, place: int = 0) -> None:
        """SplitShard in the middle, at once: its keys go to two new shards from now on."""
        shards = self._streams[stream]
        parent = shards[place]
        parent.open = False
        middle = (parent.first + parent.last) // 2
        for first, last in ((parent.first, middle), (middle + 1, parent.last)):
            shards.append(Shard(name=f"shardId-{len(shards):012d}", first=first, last=last))

    def records(self, stream: str) -> list[Stored]:
        """All stored records in the order of arrival, which is that of the sequence numbers."""
        return list(self._arrived[stream])

    async def wait_records(self, stream: str, condition: Callable[[list[Stored]], bool]) -> list[Stored]:
        """The records once they fulfil a condition."""
        while not condition(records := self.records(stream)):
            self._changed.clear()
            await self._changed.wait()
        return records

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        body = await request.read()
        if b"GetCallerIdentity" in body and "X-Amz-Target" not in request.headers:
            if self.known_keys and key not in self.known_keys:
                return web.Response(
                    status=403, text=STS_REFUSAL.format("InvalidClientTokenId"), content_type="text/xml"
                )
            if "GetCallerIdentity" in self.denied_operations:
                return web.Response(status=403, text=STS_REFUSAL.format("AccessDenied"), content_type="text/xml")
            return web.Response(text=IDENTITY, content_type="text/xml")
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        if self.known_keys and key not in self.known_keys:
            return _refuse(*REFUSALS["unknown_key"])
        if operation in self.denied_operations:
            return _refuse(*REFUSALS["denied"])
        self.keys_seen.append(key)
        if key in self.ended_keys:
            return _refuse(*REFUSALS[self.ended_as])
        asked = json.loads(body)
        if "StreamARN" in asked:
            self.arns_seen.add(asked["StreamARN"])
            asked["StreamName"] = asked.pop("StreamARN").rpartition("/")[2]
        if asked.get("StreamName") in self.denied_streams:
            return _refuse(*REFUSALS["denied"])
        handlers: dict[str, Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]] = {
            "PutRecords": self._put_records,
            "PutRecord": self._put_records,
            "DescribeStreamSummary": self._describe,
            "GetShardIterator": self._iterator,
            "GetRecords": self._get_records,
        }
        if "StreamName" in asked and asked["StreamName"] not in self._streams:
            return _refuse(400, "ResourceNotFoundException")
        return await handlers[operation](asked)

    async def _put_records(self, asked: dict[str, Any]) -> web.StreamResponse:
        self.calls += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            return await self._put_with_faults(asked)
        finally:
            self._at_once -= 1

    async def _put_with_faults(self, asked: dict[str, Any]) -> web.StreamResponse:
        fault = self.call_faults.popleft() if self.call_faults else "none"
        if fault in REFUSALS:
            return _refuse(*REFUSALS[fault])
        if fault == "closed":
            raise ConnectionResetError
        if fault == "hanging":
            await self._stopped.wait()
            return _refuse(*REFUSALS["unavailable"])
        sent = [(entry["PartitionKey"], base64.b64decode(entry["Data"])) for entry in asked.get("Records", [asked])]
        size = sum(len(key.encode()) + len(data) for key, data in sent)
        if not 1 <= len(sent) <= 500 or size > 10 << 20 or any(not 1 <= len(key) <= 256 for key, _ in sent):
            return _refuse(400, "ValidationException")
        answers = [self._put(asked["StreamName"], key, data) for key, data in sent]
        self._changed.set()
        if fault == "dropped":
            raise ConnectionResetError
        if fault == "late":
            await self._stopped.wait()
        elif fault == "short":
            answers.pop()
        elif fault == "long":
            answers.append(answers[-1])
        if "Records" not in asked:
            return _answer_singly(answers[0])
        failed = sum("ErrorCode" in answer for answer in answers)
        return _json({"FailedRecordCount": failed, "EncryptionType": "NONE", "Records": answers})

    def _put(self, stream: str, key: str, data: bytes) -> dict[str, str]:
        place = int.from_bytes(hashlib.md5(key.encode()).digest())
        shard = next(shard for shard in self._streams[stream] if shard.open and shard.first <= place <= shard.last)
        unlucky = self._dice.random() < self.failing_streams.get(stream, self.record_failure_rate)
        if unlucky or (self.fails_record is not None and self.fails_record(key, data)):
            return self._fail(self.record_failure_code, shard, stream)
        if not self._has_room(shard, len(key.encode()) + len(data)):
            return self._fail("ProvisionedThroughputExceededException", shard, stream)
        stored = Stored(shard=shard.name, sequence=next(self._sequence), key=key, data=data)
        shard.records.append(stored)
        self._arrived[stream].append(stored)
        return {"SequenceNumber": str(stored.sequence), "ShardId": shard.name}

    def _fail(self, code: str, shard: Shard, stream: str) -> dict[str, str]:
        self.failed_records += 1
        if code == "InternalFailure":
            return {"ErrorCode": code, "ErrorMessage": "Internal Service Failure"}
        where = f"shard {shard.name} in stream {stream} under account 123456789012"
        return {"ErrorCode": code, "ErrorMessage": f"Rate exceeded for {where}."}

    def _has_room(self, shard: Shard, size: int) -> bool:
        second = int(time.monotonic())
        if second != shard.second:
            shard.second, shard.second_records, shard.second_bytes = second, 0, 0
        full = (self.shard_records_per_s is not None and shard.second_records >= self.shard_records_per_s) or (
            self.shard_bytes_per_s is not None and shard.second_bytes + size > self.shard_bytes_per_s
        )
        if not full:
            shard.second_records += 1
            shard.second_bytes += size
        return not full

    async def _describe(self, asked: dict[str, Any]) -> web.StreamResponse:
        return _json(
            {
                "StreamDescriptionSummary": {
                    "StreamName": asked["StreamName"],
                    "StreamARN": f"arn:aws:kinesis:eu-west-1:123456789012:stream/{asked['StreamName']}",
                    "StreamStatus": "ACTIVE",
                    "StreamModeDetails": {"StreamMode": "PROVISIONED"},
                    "RetentionPeriodHours": 24,
                    "StreamCreationTimestamp": 1763780000,
                    "EnhancedMonitoring": [],
                    "OpenShardCount": sum(shard.open for shard in self._streams[asked["StreamName"]]),
                }
            }
        )

    async def _iterator(self, asked: dict[str, Any]) -> web.StreamResponse:
        return _json({"ShardIterator": f"{asked['StreamName']}/{asked['ShardId']}/0"})

    async def _get_records(self, asked: dict[str, Any]) -> web.StreamResponse:
        stream, shard, start = asked["ShardIterator"].split("/")
        (found,) = [one for one in self._streams[stream] if one.name == shard]
        records = found.records[int(start) : int(start) + 10_000]
        told = [
            {
                "SequenceNumber": str(record.sequence),
                "PartitionKey": record.key,
                "Data": base64.b64encode(record.data).decode(),
            }
            for record in records
        ]
        following = f"{stream}/{shard}/{int(start) + len(records)}"
        return _json({"Records": told, "NextShardIterator": following, "MillisBehindLatest": 0})


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(answer), status=status, content_type="application/x-amz-json-1.1")


def _answer_singly(answer: dict[str, str]) -> web.Response:
    """Answer as PutRecord, whose call fails with the error that PutRecords reports as a code of the record."""
    if "ErrorCode" not in answer:
        return _json({"EncryptionType": "NONE"} | answer)
    status, code = REFUSALS["internal"] if answer["ErrorCode"] == "InternalFailure" else (400, answer["ErrorCode"])
    return _json({"__type": code, "message": answer["ErrorMessage"]}, status)


def _refuse(status: int, code: str) -> web.Response:
    return _json({"__type": code, "message": f"a fault on demand: {code}"}, status)
