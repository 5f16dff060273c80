"""
Grants, and the NATS permissions that each one comes to. The grants themselves are in `shared.contracts.services` and
`shared.contracts.grants`.
"""

from msgspec import Struct

from shared.contracts import jetstream
from shared.contracts.consumers import DurableConsumer
from shared.contracts.streams import Bucket, Stream


class Grant(Struct, frozen=True, kw_only=True):
    """
    Needs of one user of NATS, expanded to subjects by `permissions_of`.

    `looks` are the streams and buckets whose configuration and state it asks for. `reads` are the durable consumers
    that it reads by, `follows` those of others whose state it asks for, `scans` pairs of stream and filter for
    short-lived consumers. Single messages it reads from streams and buckets of `gets`, all of which it may read.
    `writes`, `requests` and `serves` are subjects that it publishes on, requests and serves. It may delete messages
    from a stream of `purges`. NATS has no narrower right than one for the whole stream, so the user must check that the
    messages are its own.

    `makes` are the streams, buckets and consumers that it makes and changes: the right to read and write the account.

    `service` is the name under which it answers `$SRV` (NATS ADR-32); empty for a user that is no service.
    """

    looks: tuple[Stream | Bucket, ...] = ()
    makes: tuple[Stream | Bucket | DurableConsumer, ...] = ()
    reads: tuple[DurableConsumer, ...] = ()
    follows: tuple[DurableConsumer, ...] = ()
    scans: tuple[tuple[str, str], ...] = ()
    gets: tuple[Stream | Bucket, ...] = ()
    writes: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    purges: tuple[Stream, ...] = ()
    service: str = ""


class Permissions(Struct, frozen=True, kw_only=True):
    """Subjects a user may publish and subscribe. Replies to a received request are always allowed, once."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """The prefix of a user's own inboxes: no user can listen to another's replies."""
    return f"_INBOX_{user}"


def service_info(verb: str, service: str = "", instance: str = "") -> str:
    """
    The subject on which services are asked for PING, INFO or STATS (NATS ADR-32): all, one by name, or one process.
    """
    return ".".join(filter(None, ("$SRV", verb, service, instance)))


SERVICE_VERBS = ("PING", "INFO", "STATS")


def permissions_of(user: str, grant: Grant) -> Permissions:
    """The subjects that a grant comes to (JetStream API subjects: NATS ADR-1)."""
    publish: list[str] = [*grant.writes, *grant.requests]
    for made in grant.makes:
        publish += _making(made)
    publish += [jetstream.stream_info(_stream_of(seen)) for seen in grant.looks]
    for consumer in grant.reads:
        stream, durable = consumer.stream.name, consumer.name
        publish += [
            jetstream.consumer_info(stream, durable),
            jetstream.next_messages(stream, durable),
            jetstream.consumer_reset(stream, durable),
            f"$JS.ACK.{stream}.{durable}.>",
        ]
    publish += [jetstream.consumer_info(followed.stream.name, followed.name) for followed in grant.follows]
    for name, subject in grant.scans:
        publish.append(jetstream.consumer_create(name, "*", subject))
    for name in sorted({name for name, _ in grant.scans}):
        publish += [
            jetstream.consumer_info(name, "*"),
            jetstream.consumer_delete(name, "*"),
            jetstream.next_messages(name, "*"),
        ]
        if grant.service:
            # A scan is never acked. But a user who serves requests may answer at the reply subject of each message, and
            # the server remembers each such subject for a minute unless the user has a right to it. That took a fifth
            # of its time while 300,000 profiles changed and hooks received each change.
            publish.append(f"$JS.ACK.{name}.*.>")
    publish += [jetstream.get_message(_stream_of(read)) for read in grant.gets]
    for purged in grant.purges:
        publish += [jetstream.purge(purged.name), jetstream.delete_message(purged.name)]
    subscribe = [f"{inbox_prefix(user)}.>", *grant.serves]
    if grant.service:
        for verb in SERVICE_VERBS:
            subscribe += [
                service_info(verb),
                service_info(verb, grant.service),
                service_info(verb, grant.service, "*"),
            ]
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=tuple(subscribe))


def _making(made: Stream | Bucket | DurableConsumer) -> list[str]:
    if isinstance(made, DurableConsumer):
        name = made.stream.name
        return [jetstream.consumer_info(name, made.name), jetstream.consumer_create(name, made.name, made.subject)]
    name = _stream_of(made)
    return [jetstream.stream_info(name), jetstream.stream_create(name), jetstream.stream_update(name)]


def _stream_of(spec: Stream | Bucket) -> str:
    return spec.stream if isinstance(spec, Bucket) else spec.name
