"""
Permissions of each NATS user on a real server with the generated configuration.

The cases come from `shared.contracts.grants.GRANTS`, so a new user, stream or subject is tested without a new test.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from millrace.nats_servers.config import ensure_seeds, make_seed
from millrace.nats_servers.server import NatsServer
from shared.contracts.consumers import CONSUMERS
from shared.contracts.grants import GRANTS, PROVISION, permissions
from shared.contracts.messages import Alert, encode
from shared.contracts.permissions import inbox_prefix
from shared.contracts.services import SERVICE_NAMES, SERVICES, ServiceEntry
from shared.contracts.streams import ALERTS, BUCKETS, CONFIG, STREAMS, Bucket, Stream
from shared.contracts.subjects import alert
from shared.errors import MillraceError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.consumers import open_pull, open_scan
from shared.messaging.fill import FillWatch
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.configurations import stream_of
from shared.messaging.provisioning.looking import find_problems
from shared.messaging.provisioning.making import provision
from shared.messaging.streams import delete_message, purge
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from shared.service import Service
from support.clock import NOON

USERS = sorted(GRANTS)
MADE = {stream_of(spec): spec for spec in (*STREAMS, *BUCKETS)}

SignIn = Callable[[str], AbstractAsyncContextManager[Bus]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path / "nats", users=ensure_seeds(tmp_path / "keys")) as server:
        yield server


@pytest.fixture
def seeds(tmp_path: Path) -> dict[str, str]:
    return ensure_seeds(tmp_path / "keys")


@pytest.fixture
def sign_in(server: NatsServer, seeds: dict[str, str]) -> SignIn:
    """A connection as a service has it."""
    return lambda user: connect(user, server.url, seed=seeds[user], metrics=Metrics(), wait_s=5)


@pytest.fixture
async def streams(sign_in: SignIn) -> None:
    """Every stream, bucket and durable consumer of the mesh."""
    async with sign_in(PROVISION) as bus:
        await provision(bus, Settings())


@asynccontextmanager
async def watched(server: NatsServer, user: str, seed: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A bare connection, and the subjects that the server has refused it so far."""
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.extend(re.findall(r'violation for (?:publish|subscription) to "([^"]+)"', str(error).lower()))

    client = await nats.connect(server.url, nkeys_seed_str=seed, inbox_prefix=inbox_prefix(user), error_cb=on_error)
    try:
        yield client, refused
    finally:
        await client.close()


async def read_by_server(client: Client) -> None:
    """Wait until the server has read all data. The library's PING overtakes waiting data, so the second one counts."""
    for _ in range(2):
        await client.flush()


async def refusals(client: Client, refused: list[str], expected: set[str]) -> set[str]:
    """Refused subjects in the library's lower case, once all expected ones are in, or after 2 seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            while not {subject.lower() for subject in expected} <= set(refused):
                await client.flush()
    return set(refused)


def subject_in(spec: Stream | Bucket) -> str:
    """A filter within a stream or bucket."""
    return spec.subject_of(">") if isinstance(spec, Bucket) else spec.subjects[0]


def concrete(pattern: str) -> str:
    """A subject that the pattern matches."""
    return pattern.replace("*", "x").replace(">", "x.y")


def matches(pattern: str, subject: str) -> bool:
    """As the server compares."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1] if len(given) >= len(wanted) else []
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def test_table_has_every_service() -> None:
    assert {*SERVICE_NAMES} <= set(GRANTS)


async def test_provision_makes_everything_once(sign_in: SignIn) -> None:
    async with sign_in(PROVISION) as bus:
        first = await provision(bus, Settings())

        assert len((*STREAMS, *BUCKETS, *CONSUMERS)) == len([one for one in first if one.made])
        assert [] == await provision(bus, Settings())


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", USERS)
async def test_user_looks_at_what_it_works_with(user: str, sign_in: SignIn) -> None:
    async with sign_in(user) as bus:
        assert [] == await find_problems(bus, GRANTS[user].looks, GRANTS[user].reads)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_service_looks_at_all_that_it_declares(service: ServiceEntry) -> None:
    declared: Service = import_module(f"{service.module}.app").SERVICE

    assert {stream_of(spec) for spec in service.grant.looks} == {
        *(stream.name for stream in declared.streams),
        *(bucket.stream for bucket in declared.buckets),
    }
    assert service.grant.reads == declared.consumers


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_service_tells_how_full_its_streams_are(service: str, sign_in: SignIn) -> None:
    owned = [spec for spec in (*STREAMS, *BUCKETS) if spec.owner == service]
    async with sign_in(service) as bus:
        for spec in owned:
            kind = f"{spec.name.lower().replace('_', '-')}-filling"
            told = Alert(service=service, app_key="-", kind=kind, subject=spec.name, message="", at=NOON)
            await bus.publish(alert(service, "-", kind), encode(told))

        # They are empty, so the end of each crossing is told.
        await FillWatch(bus, service, owned).look()

        assert 2 * len(owned) == (await bus.stream_state(ALERTS)).messages


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", USERS)
async def test_user_publishes_what_it_needs(
    user: str, server: NatsServer, seeds: dict[str, str], sign_in: SignIn
) -> None:
    stored = [subject for subject in GRANTS[user].writes if not subject.startswith("$SRV.")]

    async with sign_in(user) as bus:
        sequences = [await bus.publish(concrete(subject), b"{}") for subject in stored]
    async with watched(server, user, seeds[user]) as (client, refused):
        for subject in set(GRANTS[user].writes) - set(stored):
            await client.publish(subject, b"")
        await read_by_server(client)

    assert all(sequences)
    assert [] == refused


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", USERS)
async def test_user_reads_what_it_needs(user: str, sign_in: SignIn) -> None:
    grant = GRANTS[user]

    async with sign_in(user) as bus:
        for consumer in grant.reads:
            async with open_pull(bus, consumer) as pull:
                assert 0 == pull.pending_at_open
        for name, subject in grant.scans:
            async with open_scan(bus, MADE[name], subject=subject) as scan:
                assert 0 == scan.pending_at_open
        for spec in grant.gets:
            assert await bus.last_message(spec, concrete(subject_in(spec))) is None
        if CONFIG in grant.looks and grant.service:
            assert await KeyValueStore(bus, CONFIG).get("tokens.x") is None


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", USERS)
async def test_user_cannot_publish_what_another_writes(user: str, server: NatsServer, seeds: dict[str, str]) -> None:
    allowed = permissions(user).publish
    others = {concrete(subject) for grant in GRANTS.values() for subject in grant.writes}
    config_keys = {"$KV.CONFIG.tokens.x", "$KV.CONFIG.apps.x", "$KV.CONFIG.anything"}
    forbidden = {one for one in others | config_keys if not any(matches(pattern, one) for pattern in allowed)}

    async with watched(server, user, seeds[user]) as (client, refused):
        for subject in forbidden:
            await client.publish(subject, b"{}")
        told = await refusals(client, refused, forbidden)

    assert forbidden
    assert {subject.lower() for subject in forbidden} == told


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", USERS)
async def test_user_cannot_delete_or_purge_any_stream(user: str, server: NatsServer, seeds: dict[str, str]) -> None:
    requests = {f"$JS.API.STREAM.{verb}.{name}" for verb in ("PURGE", "DELETE", "MSG.DELETE") for name in MADE}
    # What it is let to do is tested below.
    requests -= {f"$JS.API.STREAM.{verb}.{one.name}" for verb in ("PURGE", "MSG.DELETE") for one in GRANTS[user].purges}

    async with watched(server, user, seeds[user]) as (client, refused):
        for subject in requests:
            await client.publish(subject, b"")
        told = await refusals(client, refused, requests)

    assert {subject.lower() for subject in requests} == told


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", [user for user in USERS if GRANTS[user].purges])
async def test_user_takes_messages_out_of_the_streams_it_may_purge(user: str, sign_in: SignIn) -> None:
    async with sign_in(user) as bus:
        for stream in GRANTS[user].purges:
            subject = next(one for one in GRANTS[user].writes if matches(stream.subjects[0], one))
            first = (await bus.publish(concrete(subject), b"{}")).sequence
            await bus.publish(concrete(subject), b"{}")

            for _ in range(2):
                await delete_message(bus, stream, first)
            assert 1 == await purge(bus, stream, concrete(subject), before_sequence=first + 2)


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", [user for user in USERS if any(one.startswith("$KV.") for one in GRANTS[user].writes)])
async def test_user_cannot_erase_a_bucket_by_rolling_it_up(user: str, sign_in: SignIn) -> None:
    keys = [subject for subject in GRANTS[user].writes if subject.startswith("$KV.")]

    async with sign_in(user) as bus:
        for subject in keys:
            with pytest.raises(MillraceError):
                await bus.publish(concrete(subject), b"{}", headers={"Nats-Rollup": "all"})


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("user", USERS)
async def test_user_cannot_make_read_or_take_what_it_has_no_grant_for(
    user: str, server: NatsServer, seeds: dict[str, str]
) -> None:
    grant = GRANTS[user]
    durables = [(one.stream.name, one.name) for one in CONSUMERS if one not in (*grant.reads, *grant.makes)]
    requests: set[str] = set()
    if user != PROVISION:
        requests |= {f"$JS.API.STREAM.{verb}.{name}" for verb in ("CREATE", "UPDATE") for name in MADE}
        names = [f"{one.stream.name}.{one.name}" for one in CONSUMERS]
        requests |= {f"$JS.API.CONSUMER.{verb}.{name}" for verb in ("CREATE", "DELETE") for name in names}
    requests |= {f"$JS.API.DIRECT.GET.{name}.x" for name in MADE}
    requests |= {f"$JS.API.STREAM.MSG.GET.{name}" for name in set(MADE) - {stream_of(spec) for spec in grant.gets}}
    requests |= {f"$JS.API.CONSUMER.CREATE.{name}.thief.>" for name in MADE}
    for name, durable in durables:
        requests |= {f"$JS.API.CONSUMER.{verb}.{name}.{durable}" for verb in ("DELETE", "MSG.NEXT", "RESET", "CREATE")}
        requests.add(f"$JS.API.CONSUMER.CREATE.{name}.{durable}.{concrete(subject_in(MADE[name]))}")
        requests.add(f"$JS.ACK.{name}.{durable}.1.1.1.1.1")

    async with watched(server, user, seeds[user]) as (client, refused):
        for subject in requests:
            await client.publish(subject, b"{}")
        told = await refusals(client, refused, requests)

    assert {subject.lower() for subject in requests} == told


@pytest.mark.parametrize("user", USERS)
async def test_user_cannot_listen_to_others(user: str, server: NatsServer, seeds: dict[str, str]) -> None:
    inboxes = {f"{inbox_prefix(other)}.>" for other in GRANTS if other != user}
    answered = {subject for other, grant in GRANTS.items() for subject in grant.serves if other != user}
    wanted = {">", "_INBOX.>", "events.>", "$KV.>", "$JS.>", *inboxes, *answered}

    async with watched(server, user, seeds[user]) as (client, refused):
        for subject in wanted:
            await client.subscribe(subject)
        told = await refusals(client, refused, wanted)

    assert {subject.lower() for subject in wanted} == told


@pytest.mark.parametrize("user", SERVICE_NAMES)
async def test_service_answers_once_to_the_inbox_of_the_request(
    user: str, server: NatsServer, seeds: dict[str, str]
) -> None:
    async with (
        watched(server, user, seeds[user]) as (service, refused),
        watched(server, "operator", seeds["operator"]) as (operator, _),
    ):
        asked = await service.subscribe("$SRV.PING")
        await read_by_server(service)
        answer = await operator.subscribe(inbox := operator.new_inbox())
        await operator.publish("$SRV.PING", b"", reply=inbox)
        await asked.next_msg(timeout=15)
        for _ in range(2):
            await service.publish(inbox, b"here")

        assert b"here" == (await answer.next_msg(timeout=15)).data
        assert {inbox.lower()} == await refusals(service, refused, {inbox})


@pytest.mark.parametrize("seed", [None, make_seed()], ids=["nobody", "stranger"])
async def test_client_with_an_unknown_key_or_none_is_refused(server: NatsServer, seed: str | None) -> None:
    client = Client()

    with pytest.raises(NatsError, match=r"(?i)authorization violation"):
        await client.connect(server.url, allow_reconnect=False, error_cb=ignore, nkeys_seed_str=seed)
    await client.close()


async def ignore(_: Exception) -> None:
    """Drop the error, which nats-py prints by default."""
