"""
moto as a process of its own, standing in for AWS, and the customer's account in it: the bucket and the streams.

Configuration: none; any keys are accepted, and everything is forgotten when it ends.
Implementation: `millrace.demo.moto_server` takes a free port and prints it.
Considerations: moto is a development server. It shows the wire protocol of AWS, not its limits or its failures.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from millrace.machine.child_process import Child, child
from shared.aws.clients import AwsClients
from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret
from shared.errors import UnavailableError
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings, child_environment

READY_S = 30.0
RUNNING = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
REGION = "eu-central-1"
ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
"""The example keys of AWS's own documentation; no account has them."""

RECORDS_AT_ONCE = 10_000
"""The most that GetRecords returns (Kinesis API reference)."""


class StoredFile(Struct, frozen=True, kw_only=True):
    """An object in the bucket."""

    key: str
    body: bytes


@asynccontextmanager
async def run_moto(log: Path) -> AsyncIterator[str]:
    """Run moto and yield its URL. Raises `UnavailableError` when it does not start."""
    command = (sys.executable, "-P", "-m", "millrace.demo.moto_server")
    async with child("moto", command, environment=child_environment(), log=log) as server:
        yield await _wait_url(server)


async def _wait_url(server: Child) -> str:
    try:
        async with asyncio.timeout(READY_S):
            while True:
                if found := RUNNING.search(server.log.read_text(errors="replace")):
                    return found[1]
                if not server.running:
                    raise server.ended("before it was ready")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise UnavailableError(f"moto was not ready within {READY_S:.0f} s; its log is {server.log}") from None


class CustomerAccount:
    """The customer's account, seen with the customer's own keys. Made by `open_account`."""

    def __init__(self, s3: Any, kinesis: Any) -> None:
        self._s3 = s3
        self._kinesis = kinesis

    async def make_bucket(self, bucket: str, *, public: bool = False) -> None:
        """A bucket; where it is public, anybody may read an object whose key is known."""
        await self._s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        if public:
            allowed = {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::{bucket}/*",
            }
            policy = {"Version": "2012-10-17", "Statement": [allowed]}
            await self._s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    async def make_stream(self, name: str, shards: int) -> None:
        """A Kinesis stream, ready to be written."""
        await self._kinesis.create_stream(StreamName=name, ShardCount=shards)
        await self._kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})

    async def files(self, bucket: str, prefix: str) -> list[StoredFile]:
        """Every object whose key begins so, by key."""
        listed = await self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        keys = sorted(entry["Key"] for entry in listed.get("Contents", ()))
        return [StoredFile(key=key, body=await self._body(bucket, key)) for key in keys]

    async def _body(self, bucket: str, key: str) -> bytes:
        answer = await self._s3.get_object(Bucket=bucket, Key=key)
        async with answer["Body"] as body:
            content: bytes = await body.read()
            return content

    async def records(self, stream: str) -> list[list[bytes]]:
        """All records in a stream now: those of each shard, in their order."""
        shards = (await self._kinesis.list_shards(StreamName=stream))["Shards"]
        return [await self._shard(stream, shard["ShardId"]) for shard in shards]

    async def _shard(self, stream: str, shard: str) -> list[bytes]:
        begin = await self._kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )
        iterator = begin["ShardIterator"]
        records: list[bytes] = []
        while True:
            answer = await self._kinesis.get_records(ShardIterator=iterator, Limit=RECORDS_AT_ONCE)
            records += [record["Data"] for record in answer["Records"]]
            if not answer["Records"]:
                return records
            iterator = answer["NextShardIterator"]


@asynccontextmanager
async def open_account(endpoint_url: str) -> AsyncIterator[CustomerAccount]:
    """The customer's account at this endpoint."""
    keys = AwsCredentials(access_key_id=ACCESS_KEY_ID, secret_access_key=Secret(SECRET_ACCESS_KEY))
    async with AsyncExitStack() as stack:
        outgoing = await stack.enter_async_context(Outgoing(Settings(allow_private_endpoints=True)))
        clients = await stack.enter_async_context(AwsClients(outgoing))
        s3, kinesis = [
            await stack.enter_async_context(
                clients.client(service, region=REGION, credentials=keys, endpoint_url=endpoint_url)
            )
            for service in ("s3", "kinesis")
        ]
        yield CustomerAccount(s3, kinesis)
