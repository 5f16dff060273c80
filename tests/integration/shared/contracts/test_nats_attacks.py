"""
Attacks of each NATS user on the others, by every door of JetStream, on a real server with the generated configuration.

docs/adr/0027-one-user-provisions.md says what one account can close. The users and all names come from the contracts.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from msgspec import Struct
from nats.aio.client import Client

from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer
from shared.config.registry import Registry
from shared.config.secret_store import SecretStore
from shared.config.signed_store import SIGNATURE
from shared.config.tokens import Token, authenticate, new_token, token_hash
from shared.contracts.consumers import CONSUMERS
from shared.contracts.grants import GRANTS, PROVISION
from shared.contracts.messages import encode
from shared.contracts.permissions import Grant, inbox_prefix
from shared.contracts.services import SERVICE_NAMES
from shared.contracts.streams import BUCKETS, CONFIG, EVENTS, LEASES, READ_IN_PARTS, STREAMS, Bucket, Stream
from shared.errors import UnauthenticatedError
from shared.messaging.connection import connect
from shared.messaging.endpoints import answering
from shared.messaging.provisioning.configurations import stream_of
from shared.messaging.provisioning.making import provision_mesh
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.clock import NOON
from support.stored_messages import messages

pytestmark = pytest.mark.timeout(180)

SPECS = {stream_of(spec): spec for spec in (*STREAMS, *BUCKETS)}
USERS = sorted(GRANTS)
WITHOUT_PROVISION = [user for user in USERS if user != PROVISION]
OUTSIDERS = ["publisher", "push-engine"]
"""Users of programs that are not ours."""

STREAM_VERBS = (
    *("INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE"),
    *("LEADER.STEPDOWN", "PEER.REMOVE"),
)
CONSUMER_VERBS = (
    *("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "PAUSE", "RESET", "UNPIN", "LEADER.STEPDOWN", "MSG.NEXT"),
)
OF_THE_ACCOUNT = (
    *("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.META.LEADER.STEPDOWN"),
    *("$JS.API.SERVER.REMOVE", "$JS.API.ACCOUNT.PURGE.MILLRACE", "$JS.API.ACCOUNT.STREAM.MOVE.MILLRACE.EVENTS"),
    *("$JS.API.STREAM.TEMPLATE.CREATE.x", "$JS.EVENT.ADVISORY.x", "$JS.FC.EVENTS.hooks-p00.x"),
    *("$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.MILLRACE.CONNZ"),
)
THIEF = "thief"
"""The name of a consumer that is none of the mesh's."""


class Account(Struct, frozen=True):
    """A server with users, provisioned."""

    url: str
    seeds: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def account(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Account]:
    folder: Path = tmp_path_factory.mktemp("attacked")
    seeds = ensure_seeds(folder / "keys")
    async with NatsServer(folder / "nats", users=seeds) as server:
        await provision_mesh(Settings(nats_url=server.url, nats_seed=seeds[PROVISION]), wait_s=10)
        yield Account(server.url, seeds)


class Attacker:
    """A bare connection of one user, and all subjects that the server has refused it, in the library's lower case."""

    def __init__(self, client: Client, refused: set[str]) -> None:
        self.client = client
        self._refused = refused

    async def ask(self, subject: str, body: object = None, **options: Any) -> dict[str, Any] | None:
        """The answer; None where the server refuses the subject."""
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        answering = asyncio.ensure_future(self.client.request(subject, data, timeout=20, **options))
        while not answering.done() and subject.lower() not in self._refused:
            await self.client.flush()
        if subject.lower() in self._refused:
            answering.cancel()
            return None
        found: dict[str, Any] = json.loads((await answering).data or b"{}")
        return found

    async def refusals(self, requests: set[str]) -> set[str]:
        """Those of the subjects on which the user may not publish."""
        for subject in requests:
            await self.client.publish(subject, b"{}")
        return await self._refused_of(requests)

    async def unheard(self, subjects: set[str]) -> set[str]:
        """Those of the subjects to which the user may not listen."""
        for subject in subjects:
            await self.client.subscribe(subject)
        return await self._refused_of(subjects)

    async def _refused_of(self, subjects: set[str]) -> set[str]:
        # A refusal comes before the answer to a later PING. The library's first PING may overtake waiting data.
        for _ in range(3):
            await self.client.flush(timeout=30)
        return {subject for subject in subjects if subject.lower() in self._refused}


@contextlib.asynccontextmanager
async def attacking(account: Account, user: str) -> AsyncIterator[Attacker]:
    refused: set[str] = set()

    async def on_error(error: Exception) -> None:
        refused.add(str(error).lower().rpartition(' to "')[2].rstrip('"'))

    seed = account.seeds[user]
    client = await nats.connect(account.url, nkeys_seed_str=seed, inbox_prefix=inbox_prefix(user), error_cb=on_error)
    try:
        yield Attacker(client, refused)
    finally:
        await client.close()


def within(subject: str, pattern: str) -> bool:
    """Whether a pattern covers a subject or filter, token by token; `>` within a subject is a token like others."""
    given, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and within(".".join(given[: len(wanted) - 1]), ".".join(wanted[:-1]))
    return len(given) == len(wanted) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def concrete(pattern: str) -> str:
    return pattern.replace("*", "x").replace(">", "x.y")


def filters_of(stream: str) -> set[str]:
    """Every filter by which somebody reads the stream, the widest one, and one that somebody might smuggle."""
    found = {subject for grant in GRANTS.values() for name, subject in grant.scans if name == stream}
    found |= {consumer.subject for consumer in CONSUMERS if consumer.stream.name == stream}
    spec = SPECS[stream]
    return found | {">", spec.subject_of(">") if isinstance(spec, Bucket) else spec.subjects[0]}


def requests_on(stream: str) -> Iterator[str]:
    """Each request that JetStream knows about one stream and its consumers."""
    yield from (f"$JS.API.STREAM.{verb}.{stream}" for verb in STREAM_VERBS)
    yield from (f"$JS.API.CONSUMER.{verb}.{stream}" for verb in ("CREATE", "NAMES", "LIST"))
    yield f"$JS.API.DIRECT.GET.{stream}"
    for name in (THIEF, *(one.name for one in CONSUMERS if one.stream.name == stream)):
        yield from (f"$JS.API.CONSUMER.{verb}.{stream}.{name}" for verb in CONSUMER_VERBS)
        yield f"$JS.ACK.{stream}.{name}.1.1.1.1.1"
        yield from (f"$JS.API.CONSUMER.CREATE.{stream}.{name}.{subject}" for subject in filters_of(stream))
    yield from (f"$JS.API.DIRECT.GET.{stream}.{concrete(subject)}" for subject in filters_of(stream))


def granted_on(stream: str, grant: Grant) -> Iterator[str]:
    """Those that the user needs, by the meaning of its grant."""
    if stream in map(stream_of, grant.looks):
        yield f"$JS.API.STREAM.INFO.{stream}"
    if SPECS[stream] in grant.makes:
        yield from (f"$JS.API.STREAM.{verb}.{stream}" for verb in ("INFO", "CREATE", "UPDATE"))
    if SPECS[stream] in grant.purges:
        yield from (f"$JS.API.STREAM.{verb}.{stream}" for verb in ("PURGE", "MSG.DELETE"))
    for consumer in (one for one in CONSUMERS if one.stream.name == stream):
        if consumer in grant.makes:
            yield f"$JS.API.CONSUMER.CREATE.{stream}.{consumer.name}.{consumer.subject}"
            yield f"$JS.API.CONSUMER.INFO.{stream}.{consumer.name}"
        if consumer in grant.follows:
            yield f"$JS.API.CONSUMER.INFO.{stream}.{consumer.name}"
        if consumer in grant.reads:
            yield from (f"$JS.API.CONSUMER.{verb}.{stream}.{consumer.name}" for verb in ("INFO", "MSG.NEXT", "RESET"))
            yield f"$JS.ACK.{stream}.{consumer.name}.1.1.1.1.1"
    scanned = [subject for name, subject in grant.scans if name == stream]
    if scanned:
        yield from (f"$JS.API.CONSUMER.{verb}.{stream}.{THIEF}" for verb in ("INFO", "DELETE", "MSG.NEXT"))
        if grant.service:
            yield f"$JS.ACK.{stream}.{THIEF}.1.1.1.1.1"
    for subject in filters_of(stream):
        if any(within(subject, pattern) for pattern in scanned):
            yield f"$JS.API.CONSUMER.CREATE.{stream}.{THIEF}.{subject}"
    if stream in map(stream_of, grant.gets):
        yield f"$JS.API.STREAM.MSG.GET.{stream}"


@pytest.mark.parametrize("user", USERS)
async def test_every_request_of_jetstream_that_is_not_granted_is_refused(account: Account, user: str) -> None:
    wanted = {*OF_THE_ACCOUNT, *(one for stream in SPECS for one in requests_on(stream))}
    granted = {one for stream in SPECS for one in granted_on(stream, GRANTS[user])}

    async with attacking(account, user) as attacker:
        refused = await attacker.refusals(wanted)

    assert wanted - granted == refused


@pytest.mark.parametrize("user", USERS)
async def test_every_subject_of_another_is_refused(account: Account, user: str) -> None:
    grant = GRANTS[user]
    everything = {concrete(one) for other in GRANTS.values() for one in (*other.writes, *other.requests, *other.serves)}
    everything |= {CONFIG.subject_of(key) for key in ("tokens.x", "apps.x", "tokens.x.y", "anything")}
    everything |= {subject.replace("shop", "x") for subject in ("events.shop.16", "events.shop", "events.shop.0.0")}
    own_subjects = (*grant.writes, *grant.requests)
    granted = {one for one in everything if any(within(one, own) for own in own_subjects)}

    async with attacking(account, user) as attacker:
        refused = await attacker.refusals(everything)

    assert everything - granted == refused


@pytest.mark.parametrize("change", ["republish", "sources", "mirror", "max_age", "subject_transform"])
@pytest.mark.parametrize("user", WITHOUT_PROVISION)
async def test_no_user_but_provision_changes_a_stream(account: Account, user: str, change: str) -> None:
    """The right to do so was the right to make oneself an operator."""
    forged = CONFIG.subject_of(f"tokens.{token_hash(new_token())}")
    changes: dict[str, object] = {
        "republish": {"src": ">", "dest": forged},
        "sources": [{"name": "KV_CONFIG"}],
        "mirror": {"name": "KV_CONFIG"},
        "max_age": 3_600_000_000_000,
        "subject_transform": {"src": ">", "dest": forged},
    }

    async with attacking(account, user) as attacker:
        for spec in GRANTS[user].looks:
            name = stream_of(spec)
            told = await attacker.ask(f"$JS.API.STREAM.INFO.{name}")
            assert told is not None
            body = {**told["config"], change: changes[change]}
            assert await attacker.ask(f"$JS.API.STREAM.UPDATE.{name}", body) is None
            assert await attacker.ask("$JS.API.STREAM.CREATE.EVIL", {**body, "name": "EVIL"}) is None


async def _stored(account: Account, subject: str) -> list[bytes]:
    """All revisions of a key of CONFIG, as an operator reads them."""
    async with connect("operator", account.url, seed=account.seeds["operator"], metrics=Metrics(), wait_s=10) as bus:
        return [message.data for message in await messages(bus, CONFIG, subject)]


def own_messages(user: str) -> Iterator[tuple[Stream | Bucket, str, str]]:
    """Streams that a user may both write and read: the stream, a subject of a message, and the filter of its scan."""
    for name, subject in GRANTS[user].scans:
        for own in GRANTS[user].writes:
            if within(concrete(own), subject) and SPECS[name] != CONFIG:
                yield SPECS[name], concrete(own), subject
                break


FORGED = encode(Token(scopes=("admin",), created_at=NOON))


@pytest.mark.parametrize("user", [user for user in WITHOUT_PROVISION if any(own_messages(user))])
async def test_what_a_consumer_delivers_becomes_no_entry_of_config(account: Account, user: str) -> None:
    forged = CONFIG.subject_of(f"tokens.{token_hash(new_token())}")

    async with attacking(account, user) as attacker:
        for number, (spec, subject, pattern) in enumerate(own_messages(user)):
            name, consumer = stream_of(spec), f"{THIEF}-{number}"
            acknowledged = await attacker.ask(subject, FORGED)
            assert acknowledged is not None
            config = {"name": consumer, "filter_subject": pattern, "ack_policy": "none", "deliver_policy": "all"}
            create = f"$JS.API.CONSUMER.CREATE.{name}.{consumer}.{pattern}"
            for deliver in ({"deliver_subject": forged}, {}):
                body = {"stream_name": name, "config": config | deliver}
                await attacker.ask(create, body)
                await attacker.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}", b"9", reply=forged)
                # By the time of this answer, the messages were delivered where they may be.
                await attacker.ask(f"$JS.API.CONSUMER.INFO.{name}.{consumer}")
                await attacker.ask(f"$JS.API.CONSUMER.DELETE.{name}.{consumer}")
            smuggled = {**config, "filter_subjects": [">"], "name": f"{consumer}-2"}
            smuggling = f"$JS.API.CONSUMER.CREATE.{name}.{consumer}-2.{pattern}"
            told = await attacker.ask(smuggling, {"stream_name": name, "config": smuggled})
            assert told is not None
            assert "error" in told

    # A refused pull is answered by an empty message, which spoils a key and is no token.
    assert {*await _stored(account, forged)} <= {b""}


@pytest.mark.parametrize("user", OUTSIDERS)
async def test_what_is_answered_to_an_outsider_is_no_entry_of_config(account: Account, user: str) -> None:
    """The server lets an answer go to any subject. What it and the services answer is never what the asker chose."""
    keys = [CONFIG.subject_of(f"tokens.{token_hash(new_token())}") for _ in range(3)]
    grant = GRANTS[user]

    async with attacking(account, user) as attacker:
        subject = concrete(grant.writes[0])
        await attacker.client.publish(subject, FORGED, reply=keys[0])
        for stream in map(stream_of, grant.looks):
            filtered = json.dumps({"subjects_filter": ">"}).encode()
            await attacker.client.publish(f"$JS.API.STREAM.INFO.{stream}", filtered, reply=keys[1])
        for consumer in grant.reads:
            question = f"$JS.API.CONSUMER.INFO.{consumer.stream.name}.{consumer.name}"
            await attacker.client.publish(question, b"", reply=keys[2])
        # Requests of one connection are answered in turn.
        assert await attacker.ask(f"$JS.API.STREAM.INFO.{EVENTS.name}") is not None

    for key in keys:
        for stored in await _stored(account, key):
            assert not {"scopes", "created_at"} & json.loads(stored).keys()


async def test_token_without_a_signature_opens_nothing(account: Account, secrets: SecretStore) -> None:
    """The user `operator` may write it, without the secret keys too."""
    token = new_token()
    forged = CONFIG.subject_of(f"tokens.{token_hash(token)}")

    async with connect("operator", account.url, seed=account.seeds["operator"], metrics=Metrics(), wait_s=10) as bus:
        await bus.publish(forged, FORGED)
        registry = Registry(bus, secrets, service="test", relist_s=30)
        with pytest.raises(UnauthenticatedError):
            await authenticate(registry, f"Bearer {token}")


@pytest.mark.parametrize("user", SERVICE_NAMES)
def test_stream_is_read_whole_only_by_a_user_that_may_read_all_of_it(user: str) -> None:
    """A request for one message names its subject in the body, which no right is compared with."""
    for spec in GRANTS[user].gets:
        read = [subject for name, subject in GRANTS[user].scans if name == stream_of(spec)]
        written = {concrete(one) for grant in GRANTS.values() for one in grant.writes}
        written = {one for one in written if any(within(one, pattern) for pattern in patterns_of(spec))}

        assert spec not in READ_IN_PARTS
        assert written
        assert all(any(within(one, pattern) for pattern in read) for one in written)


class Victim(Struct, frozen=True):
    """A subject that a message may be led to, and a user that reads it by a filter."""

    reader: str
    stream: str
    pattern: str
    subject: str


def victims(user: str) -> Iterator[Victim]:
    """For each filter that somebody reads by: one subject, of this attacker's own, on which it may not publish."""
    seen: set[str] = set()
    for reader, grant in GRANTS.items():
        for stream, pattern in grant.scans:
            subject = (
                pattern.replace(">", "*.*") if stream != "KV_LEASES" else LEASES.subject_of(f"hooks.member.{user}")
            )
            subject = f"events.{user}.3" if stream == EVENTS.name else subject.replace("*", user)
            if subject not in seen and not any(within(subject, own) for own in GRANTS[user].writes):
                seen.add(subject)
                yield Victim(reader, stream, pattern, subject)


def is_answer(body: bytes) -> bool:
    """Whether a body is the server's own: the empty one of a status, an acknowledgement, or an answer of the API."""
    if not body:
        return True
    found = json.loads(body)
    return isinstance(found, dict) and (
        found.keys() <= {"stream", "seq", "duplicate", "error"} or str(found.get("type", "")).startswith("io.nats.")
    )


CHOSEN = "chosen by the attacker"


@pytest.mark.parametrize("user", WITHOUT_PROVISION)
async def test_no_body_that_a_user_chose_gets_where_it_may_not_write(account: Account, user: str) -> None:
    """
    The server lets an answer go to any subject. With each request that JetStream knows, sent for each subject that
    another user reads, no more than an answer of the server's form arrives there.
    """
    grant = GRANTS[user]
    attacked = [*victims(user)]
    owned = {
        name: concrete(own)
        for spec in SPECS.values()
        for own in grant.writes
        for name in [stream_of(spec)]
        if any(within(concrete(own), one) for one in patterns_of(spec))
    }
    body = json.dumps({"scopes": ["admin"], "owner": CHOSEN, "rows": [CHOSEN]}).encode()

    async with attacking(account, user) as attacker:
        for own in owned.values():
            assert await attacker.ask(own, body, headers={"Millrace-Signature": CHOSEN}) is not None
        for number, victim in enumerate(attacked):
            for subject in owned.values():
                await attacker.client.publish(subject, body, reply=victim.subject)
            for stream in SPECS:
                own = owned.get(stream, ">")
                for request in requests_on(stream):
                    for question in questions(request.replace(THIEF, f"{THIEF}-{number}"), stream, own, victim.subject):
                        await attacker.client.publish(*question, reply=victim.subject)
            await attacker.client.flush(timeout=30)
        for _ in range(3):
            await attacker.client.flush(timeout=30)
        assert await attacker.ask(f"$JS.API.STREAM.INFO.{stream_of(grant.looks[0])}") is not None

    arrived = 0
    for victim in attacked:
        seed = account.seeds[victim.reader]
        async with connect(victim.reader, account.url, seed=seed, metrics=Metrics(), wait_s=10) as bus:
            for message in await messages(bus, SPECS[victim.stream], victim.pattern):
                if message.subject == victim.subject:
                    arrived += 1
                    assert is_answer(message.data), (victim, message.data)
                    assert SIGNATURE not in message.headers
    assert arrived > 0


def patterns_of(spec: Stream | Bucket) -> tuple[str, ...]:
    return (spec.subject_of(">"),) if isinstance(spec, Bucket) else spec.subjects


def questions(request: str, stream: str, own: str, victim: str) -> Iterator[tuple[str, bytes]]:
    """A request with each body that may make the server send something of the asker's to the victim."""
    verb, *rest = request.removeprefix("$JS.API.").split(f".{stream}")
    name = rest[0].strip(".").partition(".")[0] if rest else ""
    bodies: list[dict[str, Any]] = [{}]
    if verb == "STREAM.MSG.GET":
        bodies = [{"last_by_subj": own}, {"seq": 1}, {"next_by_subj": own, "seq": 1}]
    elif verb.startswith("DIRECT.GET"):
        bodies = [{}, {"last_by_subj": own}, {"multi_last": [own]}, {"seq": 1, "batch": 10}]
    elif verb == "STREAM.INFO":
        bodies = [{"subjects_filter": ">", "deleted_details": True}]
    elif verb == "CONSUMER.CREATE":
        chosen = {"description": CHOSEN, "metadata": {"scopes": CHOSEN}, "ack_policy": "none", "mem_storage": True}
        pattern = request.partition(f".{name}.")[2]
        for delivery in ({}, {"deliver_subject": victim}):
            config = {"name": name, "filter_subject": pattern, "deliver_policy": "all", **chosen, **delivery}
            yield request, json.dumps({"stream_name": stream, "config": config}).encode()
            yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", b'{"batch": 100, "no_wait": true}'
            yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", b'{"batch": 1, "expires": 1000000, "idle_heartbeat": 1}'
        return
    elif verb == "CONSUMER.MSG.NEXT":
        bodies = [{"batch": 100, "no_wait": True}]
    elif verb in {"STREAM.PURGE", "CONSUMER.DELETE", "STREAM.MSG.DELETE"}:
        bodies = [{"filter": "nothing.of.it"}]
    for body in bodies:
        yield request, json.dumps(body).encode()


@pytest.mark.parametrize("user", SERVICE_NAMES)
async def test_operator_asks_each_service_for_its_information(account: Account, user: str) -> None:
    async with (
        connect(user, account.url, seed=account.seeds[user], metrics=Metrics(), wait_s=10) as bus,
        answering(bus, user, "1.2.3", None, ()),
        attacking(account, "operator") as operator,
    ):
        for verb in ("PING", "INFO", "STATS"):
            told = await operator.ask(f"$SRV.{verb}.{user}", b"")
            assert told is not None
            assert (user, "1.2.3") == (told["name"], told["version"])
            one = await operator.ask(f"$SRV.{verb}.{user}.{told['id']}", b"")
            assert one is not None
            assert told["id"] == one["id"]
            everyone = await operator.ask(f"$SRV.{verb}", b"")
            assert everyone is not None


@pytest.mark.parametrize("user", [user for user in USERS if user != "operator"])
async def test_nobody_but_operator_asks_services_and_none_hears_of_another(account: Account, user: str) -> None:
    names = [name for name in SERVICE_NAMES if name != user]
    asked = {f"$SRV.{verb}{name}" for verb in ("PING", "INFO", "STATS") for name in ("", *(f".{one}" for one in names))}
    heard = {"$SRV.>", "$SRV.PING.>", *(f"$SRV.{verb}.{name}" for verb in ("PING", "INFO", "STATS") for name in names)}

    async with attacking(account, user) as attacker:
        refused = await attacker.refusals(asked)
        unheard = await attacker.unheard(heard)

    assert (asked, heard) == (refused, unheard)
