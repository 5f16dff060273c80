"""
One suite for every sink that `hooks.sinks` lists. A sink without a laboratory here fails it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, get_args

import pytest

from hooks.delivery.counters import HookCounters
from hooks.delivery.model import Failed, Record, Sent, Sink, SinkLimits
from hooks.sinks import SinkConfig
from hooks.sinks.kinesis.config import KinesisConfig
from hooks.sinks.webhook.client import WebhookClient
from hooks.sinks.webhook.config import WebhookConfig
from shared.aws.clients import AwsClients
from shared.config.secret import Secret
from shared.errors import (
    BusyError,
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    UnavailableError,
)
from shared.outgoing.door import Outgoing
from support.fakes.sink import make_record
from support.outgoing import aws_clients, open_outgoing
from support.servers.kinesis import CallFault, FaultyKinesis
from support.servers.webhooks import SECRET, Receiver

SINKS: tuple[type[Any], ...] = get_args(SinkConfig) or (SinkConfig,)


class Laboratory(Protocol):
    """A target of a sink that can be made to fail. Where it does not see the keys, they are empty in `stored`."""

    sink: Sink
    sees_keys: bool

    def fail_calls(self, kind: type[MillraceError]) -> None: ...

    def fall_silent(self) -> None: ...

    def fail_records(self, *data: bytes) -> None: ...

    def refuse_records(self) -> None: ...

    def stored(self) -> Sequence[tuple[str, bytes]]: ...

    def without_target(self) -> Sink: ...

    def without_credentials(self) -> Sink: ...


KINESIS_FAULTS: dict[type[MillraceError], CallFault] = {
    BusyError: "throttled",
    UnavailableError: "internal",
    DeniedError: "denied",
    CredentialsError: "expired",
}
BUSY: CallFault = "limited"
"""Fault of PutRecord: the throttling of the stream, since that of a shard is an error of the record."""


class KinesisLaboratory:
    sees_keys = True

    def __init__(self, server: FaultyKinesis, clients: AwsClients) -> None:
        self._server = server
        self._clients = clients
        server.create_stream("orders", shards=4)
        server.known_keys = {"AKIAIOSFODNN7EXAMPLE"}
        self._config = KinesisConfig(
            region="eu-west-1",
            api_key="AKIAIOSFODNN7EXAMPLE",
            secret_key=Secret("not-a-real-secret-key"),
            endpoint_url=server.url,
        )
        self.sink: Sink = self._open(self._config, "orders")

    def _open(self, config: KinesisConfig, stream_name: str) -> Sink:
        return config.open(self._clients, stream_name, lambda _: None, call_s=5.0)

    def fail_calls(self, kind: type[MillraceError]) -> None:
        # After a denied PutRecords comes a PutRecord.
        self._server.call_faults.extend([KINESIS_FAULTS[kind]] * (2 if kind is DeniedError else 1))

    def fall_silent(self) -> None:
        self._server.call_faults.append("hanging")

    def fail_records(self, *data: bytes) -> None:
        self._server.fails_record = lambda _, sent: sent in data

    def refuse_records(self) -> None:
        self._server.call_faults.append("validation")

    def stored(self) -> Sequence[tuple[str, bytes]]:
        return [(record.key, record.data) for record in self._server.records("orders")]

    def without_target(self) -> Sink:
        return self._open(self._config, "missing")

    def without_credentials(self) -> Sink:
        config = KinesisConfig(
            region="eu-west-1",
            api_key="AKIAREVOKED0EXAMPLE0",
            secret_key=Secret("not-a-real-secret-key"),
            endpoint_url=self._server.url,
        )
        return self._open(config, "orders")


@asynccontextmanager
async def kinesis_laboratory() -> AsyncIterator[Laboratory]:
    async with FaultyKinesis() as server, aws_clients() as clients:
        yield KinesisLaboratory(server, clients)


class PutRecordLaboratory(KinesisLaboratory):
    """The policy grants kinesis:PutRecord alone."""

    def __init__(self, server: FaultyKinesis, clients: AwsClients) -> None:
        super().__init__(server, clients)
        server.denied_operations = {"PutRecords"}

    def fail_calls(self, kind: type[MillraceError]) -> None:
        self._server.call_faults.append(BUSY if kind is BusyError else KINESIS_FAULTS[kind])


@asynccontextmanager
async def put_record_laboratory() -> AsyncIterator[Laboratory]:
    async with FaultyKinesis() as server, aws_clients() as clients:
        yield PutRecordLaboratory(server, clients)


STATUSES: dict[type[MillraceError], int] = {
    BusyError: 429,
    UnavailableError: 500,
    DeniedError: 403,
    CredentialsError: 401,
}


class WebhookLaboratory:
    sees_keys = False

    def __init__(self, server: Receiver, outgoing: Outgoing) -> None:
        self._server = server
        self._client = WebhookClient(outgoing, lambda: datetime(2026, 11, 22, tzinfo=UTC))
        self.sink: Sink = self._open(server.url, SECRET)

    def _open(self, url: str, secret: str) -> Sink:
        return WebhookConfig(url=url, secret=Secret(secret)).open(self._client, "hook", lambda _: None, request_s=5.0)

    def fail_calls(self, kind: type[MillraceError]) -> None:
        self._server.answers.append((STATUSES[kind], {}))

    def fall_silent(self) -> None:
        self._server.silent = True

    def fail_records(self, *data: bytes) -> None:
        self._server.status_of = lambda sent: 503 if sent in data else 200

    def refuse_records(self) -> None:
        self._server.status_of = lambda _: 422

    def stored(self) -> Sequence[tuple[str, bytes]]:
        return [("", request.data) for request in self._server.received]

    def without_target(self) -> Sink:
        return self._open(f"{self._server.url}/missing", SECRET)

    def without_credentials(self) -> Sink:
        return self._open(self._server.url, "whsec_" + "A" * 32)


@asynccontextmanager
async def webhook_laboratory() -> AsyncIterator[Laboratory]:
    async with Receiver() as server, open_outgoing() as outgoing:
        yield WebhookLaboratory(server, outgoing)


LABORATORIES = {
    KinesisConfig: kinesis_laboratory,
    WebhookConfig: webhook_laboratory,
    PutRecordLaboratory: put_record_laboratory,
}


@pytest.fixture(params=[*SINKS, PutRecordLaboratory], ids=lambda config: config.__name__)
async def laboratory(request: pytest.FixtureRequest) -> AsyncIterator[Laboratory]:
    assert request.param in LABORATORIES, f"{request.param.__name__} needs a laboratory in this file"
    opened: AbstractAsyncContextManager[Laboratory] = LABORATORIES[request.param]()
    async with opened as laboratory:
        yield laboratory


def record(key: str, data: bytes) -> Record:
    return make_record(
        key=key,
        data=data,
        hook_id="hook",
        source="EVENTS:1:0",
        counters=HookCounters(lambda: datetime(2026, 11, 22, tzinfo=UTC)),
        done=lambda _: None,
    )


def seen(laboratory: Laboratory, sent: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return the records that `stored` returns, sorted, when all have arrived."""
    return sorted((key if laboratory.sees_keys else "", data) for key, data in sent)


async def test_a_batch_is_stored_and_answered_in_its_order(laboratory: Laboratory) -> None:
    sent = [(f"user-{number}", f"data-{number}".encode()) for number in range(50)]

    outcomes = await laboratory.sink.send([record(key, data) for key, data in sent])

    assert [True] * 50 == [isinstance(outcome, Sent) for outcome in outcomes]
    assert seen(laboratory, sent) == sorted(laboratory.stored())


async def test_a_key_of_any_characters_and_data_of_any_bytes_arrive_as_they_are(laboratory: Laboratory) -> None:
    sent = [("ü" * 256, bytes(range(256))), ('a"b\\\n\t \x01', b"")]

    await laboratory.sink.send([record(key, data) for key, data in sent])

    assert seen(laboratory, sent) == sorted(laboratory.stored())


async def test_failed_records_are_reported_by_their_position(laboratory: Laboratory) -> None:
    laboratory.fail_records(b"1", b"3")

    outcomes = await laboratory.sink.send([record(f"user-{number}", str(number).encode()) for number in range(5)])

    assert [False, True, False, True, False] == [isinstance(outcome, Failed) for outcome in outcomes]
    assert all(outcome.retryable for outcome in outcomes if isinstance(outcome, Failed))
    assert {b"0", b"2", b"4"} == {data for _, data in laboratory.stored()}


@pytest.mark.parametrize("kind", [BusyError, UnavailableError, DeniedError, CredentialsError])
async def test_a_refused_call_raises_its_kind_and_is_not_tried_again(
    laboratory: Laboratory, kind: type[MillraceError]
) -> None:
    laboratory.fail_calls(kind)

    with pytest.raises(kind):
        await laboratory.sink.send([record("ann", b"1")])

    assert [] == laboratory.stored()


async def test_a_record_that_is_refused_for_itself_is_the_guilty_one(laboratory: Laboratory) -> None:
    laboratory.refuse_records()

    try:
        (outcome,) = await laboratory.sink.send([record("ann", b"1")])
    except InvalidError:
        return  # Said of a call with one record, it is said of the record.

    assert isinstance(outcome, Failed)
    assert not outcome.retryable


async def test_silence_is_unavailable_in_the_end(laboratory: Laboratory) -> None:
    laboratory.fall_silent()

    with pytest.raises(UnavailableError):
        await laboratory.sink.send([record("ann", b"1")])


async def test_a_target_that_is_not_there_is_not_found(laboratory: Laboratory) -> None:
    sink = laboratory.without_target()

    with pytest.raises(NotFoundError):
        await sink.send([record("ann", b"1")])
    with pytest.raises(NotFoundError):
        await sink.ping()


async def test_refused_credentials_are_an_error_of_their_own(laboratory: Laboratory) -> None:
    sink = laboratory.without_credentials()

    with pytest.raises(CredentialsError):
        await sink.send([record("ann", b"1")])


async def test_ping_sends_nothing(laboratory: Laboratory) -> None:
    await laboratory.sink.ping()

    assert [] == laboratory.stored()


# The SDK gives aiohttp the whole body at once, which aiohttp would rather have as a stream.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_call_as_large_as_the_limits_allow_is_accepted(laboratory: Laboratory) -> None:
    limits: SinkLimits = laboratory.sink.limits
    data = b"x" * ((limits.call_bytes // limits.call_records) - len("user-000"))

    outcomes = await laboratory.sink.send([record(f"user-{number:03}", data) for number in range(limits.call_records)])

    assert all(isinstance(outcome, Sent) for outcome in outcomes)
