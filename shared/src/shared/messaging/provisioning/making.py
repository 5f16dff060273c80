"""
Streams, buckets and durable consumers made and put right, by the one user that may (`provision` of `GRANTS`).

All of a configuration is managed. The right to change a stream is the right to read and write the whole account, so
what nobody here wants is taken out again (docs/adr/0027). Making is idempotent, and safe when it runs twice at once.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from shared.contracts import jetstream
from shared.contracts.alerts import AlertSender
from shared.contracts.consumers import CONSUMERS, DurableConsumer
from shared.contracts.grants import PROVISION
from shared.contracts.streams import BUCKETS, EVENTS, STREAMS, Bucket, Stream
from shared.contracts.subjects import EVERY_EVENT, PARTITIONS
from shared.errors import ConflictError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.nats_py.errors import STREAM_FULL
from shared.messaging.provisioning.configurations import (
    Configuration,
    Difference,
    differences,
    merged,
    stream_of,
    title,
    wanted_consumer,
    wanted_stream,
    with_limits,
)
from shared.messaging.streams import PARTITIONS_KEY, subjects_in
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NAME_IN_USE = (10058, 10148, 10105)
"""JSStreamNameExistErr, JSConsumerAlreadyExists, JSConsumerNameExistErr."""
NOT_READY = (10008, 10009, 10005)
"""JSClusterNotAvailErr, JSClusterNotLeaderErr, JSClusterNoPeersErrF: a cluster that elects a leader."""
READY_S = 30.0
"""Time in which a cluster may choose a leader for JetStream."""
ANSWER_S = 5.0


class Provisioned(Struct, frozen=True):
    """A stream, bucket or consumer that was made, or in which `differences` were put right."""

    title: str
    made: bool
    differences: tuple[Difference, ...] = ()

    def __str__(self) -> str:
        return f"made {self.title}" if self.made else f"changed {self.title}: {'; '.join(map(str, self.differences))}"

    @property
    def unwanted(self) -> tuple[Difference, ...]:
        """Additions that no release makes, such as a `republish`."""
        return tuple(one for one in self.differences if one.expected is None)


async def provision_mesh(settings: Settings, *, wait_s: float) -> list[Provisioned]:
    """
    Sign in as the user `provision`, with the seed of the settings, and provision. Additions that no release makes are
    alerted, and old events that lie where nobody reads them.

    Raises:
        ConflictError, UnavailableError: As `provision` raises them, or NATS was not reached within `wait_s`.
    """
    async with connect(PROVISION, settings.nats_url, seed=settings.nats_seed, metrics=Metrics(), wait_s=wait_s) as bus:
        changed = await provision(bus, settings)
        alerts = AlertSender(PROVISION, bus.alert, lambda: datetime.now(UTC))
        for one in changed:
            if one.unwanted:
                await alerts.send("", "configuration-put-back", one.title, str(one))
        if unread := await _unread_events(bus):
            await alerts.send("", "events-unread", EVENTS.name, unread)
    return changed


async def _unread_events(bus: Bus) -> str:
    """The words about events under subjects that a release before took, which hooks does not read; empty for none."""
    partitions = {str(number) for number in range(PARTITIONS)}
    found = await subjects_in(bus, EVENTS, EVERY_EVENT)
    unread = {subject: count for subject, count in found.items() if subject.rpartition(".")[2] not in partitions}
    if not unread:
        return ""
    return (
        f"{sum(unread.values())} messages lie under {len(unread)} subjects that hooks does not read, such as "
        f"{min(unread)}: the partitions are 0 to {PARTITIONS - 1}. They go when they are older than EVENTS keeps events"
    )


async def provision(
    bus: Bus,
    settings: Settings,
    *,
    specs: Sequence[Stream | Bucket] = (*STREAMS, *BUCKETS),
    consumers: Sequence[DurableConsumer] = CONSUMERS,
) -> list[Provisioned]:
    """
    Make all that the mesh keeps in NATS, and put right what differs.

    Returns:
        All that was changed, in the order of the contracts; nothing where nothing was.

    Raises:
        ConflictError: JetStream cannot change a field; names it, what was expected and what was found.
        UnavailableError: JetStream was not ready within 30 s, or the disk is too small.
    """
    made = [await ensure(bus, spec, settings) for spec in specs]
    made += [await ensure_consumer(bus, consumer) for consumer in consumers]
    return [one for one in made if one is not None]


async def ensure(bus: Bus, spec: Stream | Bucket, settings: Settings) -> Provisioned | None:
    """
    Make a stream or bucket, or put it right. None when there was nothing to do.

    Raises:
        ConflictError, UnavailableError: As `provision` raises them.
    """
    wanted = wanted_stream(spec, settings)
    return await _until_ready(title(spec), lambda: _ensure_stream(bus, spec, wanted))


async def ensure_consumer(bus: Bus, consumer: DurableConsumer) -> Provisioned | None:
    """
    Make a durable consumer, or put it right; it keeps its ack floor. None when there was nothing to do.

    Raises:
        ConflictError, UnavailableError: As `provision` raises them.
    """
    return await _until_ready(title(consumer), lambda: _ensure_consumer(bus, consumer))


async def _until_ready(name: str, work: Callable[[], Awaitable[Provisioned | None]]) -> Provisioned | None:
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        try:
            done = await work()
        except (APIError, NatsError, TimeoutError) as error:
            transient = not isinstance(error, APIError) or error.err_code in NOT_READY or error.code == 503
            if not transient or asyncio.get_running_loop().time() > deadline:
                unanswered = f"NATS does not answer; expected the seed of the NATS user {PROVISION}"
                reason = error.description if isinstance(error, APIError) else unanswered
                raise UnavailableError(f"{name} could not be made: {reason}") from error
            log.warning("provisioning_failed", what=name, message=str(error) or type(error).__name__)
            await asyncio.sleep(0.25)
        else:
            if done is not None:
                changes = [str(one) for one in done.differences]
                log.info("resource_provisioned", what=name, made=done.made, changes=changes)
            return done


async def _ensure_stream(bus: Bus, spec: Stream | Bucket, wanted: Configuration) -> Provisioned | None:
    name = stream_of(spec)
    try:
        answer = await _ask(bus, jetstream.stream_info(name))
    except APIError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return await _make_stream(bus, spec, wanted)
    found, stored = answer["config"], answer["state"]["bytes"]
    partitions = (found.get("metadata") or {}).get(PARTITIONS_KEY)
    if spec == EVENTS and partitions not in (None, str(PARTITIONS)):
        raise ConflictError(f"{name} was made with {partitions} partitions, this release has {PARTITIONS}")
    if wanted["discard"] == "old" and stored > wanted["max_bytes"]:
        # The server would delete the oldest messages at once. A later run finds them too old, and sets the limit.
        log.warning("stream_limit_exceeded", stream=name, bytes=stored, max_bytes=wanted["max_bytes"])
        wanted = with_limits({**wanted, "max_bytes": found["max_bytes"]})
    return await _update(bus, spec, jetstream.stream_update(name), found, wanted, merged(found, wanted))


async def _make_stream(bus: Bus, spec: Stream | Bucket, wanted: Configuration) -> Provisioned | None:
    try:
        await _ask(bus, jetstream.stream_create(stream_of(spec)), wanted)
    except APIError as error:
        if error.err_code in NAME_IN_USE:
            # Another run made it between the question and the creation.
            return await _ensure_stream(bus, spec, wanted)
        if error.err_code in STREAM_FULL:
            raise _no_room(spec, wanted, error) from error
        raise
    return Provisioned(title(spec), made=True)


def _no_room(spec: Stream | Bucket, wanted: Configuration, error: APIError) -> UnavailableError:
    setting = "MILLRACE_EVENTS_MAX_BYTES" if spec == EVENTS else "MILLRACE_STREAM_MAX_BYTES"
    return UnavailableError(
        f"{title(spec)} reserves {wanted['max_bytes'] / (1 << 30):.2f} GiB of disk, and NATS has less"
        f" ({error.description}); free some of the disk and start NATS again, or set {setting}"
    )


async def _ensure_consumer(bus: Bus, consumer: DurableConsumer) -> Provisioned | None:
    stream, name = consumer.stream.name, consumer.name
    wanted, create = wanted_consumer(consumer), jetstream.consumer_create(stream, name, consumer.subject)
    try:
        found = (await _ask(bus, jetstream.consumer_info(stream, name)))["config"]
    except APIError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        await _ask(bus, create, {"stream_name": stream, "config": wanted, "action": "create"})
        return Provisioned(title(consumer), made=True)
    changed = {"stream_name": stream, "config": merged(found, wanted), "action": "update"}
    return await _update(bus, consumer, create, found, wanted, changed)


async def _update(
    bus: Bus,
    spec: Stream | Bucket | DurableConsumer,
    subject: str,
    found: Configuration,
    wanted: Configuration,
    body: Configuration,
) -> Provisioned | None:
    told = differences(found, wanted)
    if not told:
        return None
    try:
        left = differences((await _ask(bus, subject, body))["config"], wanted)
        reason = "JetStream did not change it"
    except APIError as error:
        if error.err_code in STREAM_FULL and not isinstance(spec, DurableConsumer):
            raise _no_room(spec, wanted, error) from error
        if error.err_code in NOT_READY or error.code == 503:
            raise
        left, reason = told, f"JetStream refuses to change it: {error.description}"
    if left:
        raise ConflictError(f"{title(spec)}: {'; '.join(map(str, left))}; {reason}")
    return Provisioned(title(spec), made=False, differences=tuple(told))


async def _ask(bus: Bus, subject: str, body: Configuration | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else b""
    answer: dict[str, Any] = json.loads((await bus.client.request(subject, data, timeout=ANSWER_S)).data)
    if refusal := answer.get("error"):
        raise APIError(refusal["code"], refusal.get("description"), refusal.get("err_code"))
    return answer
