"""
Kinesis as far as PutRecords goes, as a process of its own that answers and forgets. It gives sequence numbers in the
order in which it stores, all of one shard, so that every inversion shows.

    python kinesis_stub.py PORT OPTIONS

`OPTIONS` is JSON. Records are only counted, which costs little; where `measures_ages`, they are opened, their events
counted and their ages stored. GET / returns the number of events, GET /ages their ages in milliseconds, each once.
"""

import asyncio
import random
import re
import sys
import time

import msgspec
from aiohttp import web
from msgspec import Struct

OCCURRED = re.compile(rb'"ts":(\d+)')
SHARD = "shardId-000000000000"
STORED = f'{{"SequenceNumber":"%056d","ShardId":"{SHARD}"}}'
REFUSED = (
    '{"ErrorCode":"ProvisionedThroughputExceededException",'
    f'"ErrorMessage":"Rate exceeded for shard {SHARD} in stream events under account 123456789012."}}'
)


class Options(Struct, frozen=True, kw_only=True):
    """`delay_s` passes before a call is stored, give or take 30 %. `refuses` is the share of records that fail."""

    delay_s: float = 0.0
    refuses: float = 0.0
    measures_ages: bool = False


class Entry(Struct, frozen=True, gc=False):
    Data: bytes


class PutRecords(Struct, frozen=True, gc=False):
    Records: list[Entry]


class Stub:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._dice = random.Random(1)
        self._decoder = msgspec.json.Decoder(PutRecords)
        self._number = 0
        self._events = 0
        self._ages_ms: list[int] = []

    async def put(self, request: web.Request) -> web.Response:
        body = await request.read()
        if delay_s := self._options.delay_s:
            await asyncio.sleep(delay_s * self._dice.uniform(0.7, 1.3))
        events = self._count_events(body) if self._options.measures_ages else [1] * body.count(b'"PartitionKey"')
        refuses, told = self._options.refuses, []
        for inside in events:
            if refuses and self._dice.random() < refuses:
                told.append(REFUSED)
                continue
            self._number += 1
            self._events += inside
            told.append(STORED % self._number)
        failed = len(events) - sum(one is not REFUSED for one in told)
        text = f'{{"FailedRecordCount":{failed},"Records":[{",".join(told)}]}}'
        return web.Response(text=text, content_type="application/x-amz-json-1.1")

    def _count_events(self, body: bytes) -> list[int]:
        """Count the events in each record, and store their ages."""
        now_ms = time.time_ns() // 1_000_000
        found = []
        for entry in self._decoder.decode(body).Records:
            times = OCCURRED.findall(entry.Data)
            self._ages_ms += [now_ms - int(occurred) for occurred in times]
            found.append(len(times))
        return found

    async def events(self, _: web.Request) -> web.Response:
        return web.json_response(self._events)

    async def ages(self, _: web.Request) -> web.Response:
        ages_ms, self._ages_ms = self._ages_ms, []
        return web.json_response(ages_ms)


async def main(port: int, options: Options) -> None:
    stub = Stub(options)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", stub.put)
    app.router.add_get("/", stub.events)
    app.router.add_get("/ages", stub.ages)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Options)))
