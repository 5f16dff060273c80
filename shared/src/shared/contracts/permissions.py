"""
Grants, and the NATS permissions that each one comes to. The grants themselves are in `shared.contracts.services` and
`shared.contracts.grants`.
"""

from msgspec import Struct

from shared.contracts.streams import Bucket, Stream


class Grant(Struct, frozen=True, kw_only=True):
    """
    Needs of one user of NATS, expanded to subjects by `permissions_of`.

    `creates` are the streams and buckets that it creates and updates at start. `reads` are pairs of stream and durable,
    `scans` pairs of stream and filter for short-lived consumers and direct gets. `writes`, `requests` and `serves` are
    subjects that it publishes on, requests and serves. It may delete messages from a stream of `purges`. NATS has no
    narrower right than one for the whole stream, so the user must check that the messages are its own.
    """

    creates: tuple[Stream | Bucket, ...] = ()
    reads: tuple[tuple[Stream, str], ...] = ()
    scans: tuple[tuple[str, str], ...] = ()
    writes: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    purges: tuple[Stream, ...] = ()


class Permissions(Struct, frozen=True, kw_only=True):
    """Subjects a user may publish and subscribe. Replies to a received request are always allowed, once."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """The prefix of a user's own inboxes: no user can listen to another's replies."""
    return f"_INBOX_{user}"


def permissions_of(user: str, grant: Grant) -> Permissions:
    """The subjects that a grant comes to (JetStream API subjects: NATS ADR-1, ADR-31)."""
    publish: list[str] = [*grant.writes, *grant.requests]
    for made in grant.creates:
        name = made.stream if isinstance(made, Bucket) else made.name
        publish += [f"$JS.API.STREAM.{verb}.{name}" for verb in ("INFO", "CREATE", "UPDATE")]
    for stream, durable in grant.reads:
        publish += [
            f"$JS.API.CONSUMER.CREATE.{stream.name}.{durable}.>",
            f"$JS.API.CONSUMER.INFO.{stream.name}.{durable}",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{durable}",
            f"$JS.API.CONSUMER.RESET.{stream.name}.{durable}",
            f"$JS.ACK.{stream.name}.{durable}.>",
        ]
    for name, subject in grant.scans:
        publish += [f"$JS.API.CONSUMER.CREATE.{name}.*.{subject}", f"$JS.API.DIRECT.GET.{name}.{subject}"]
    for name in sorted({name for name, _ in grant.scans}):
        publish += [f"$JS.API.CONSUMER.{verb}.{name}.*" for verb in ("INFO", "DELETE", "MSG.NEXT")]
        if grant.serves:
            # A scan is never acked. But a user who serves requests may answer at the reply subject of each message, and
            # the server remembers each such subject for a minute unless the user has a right to it. That took a fifth
            # of its time while 300,000 profiles changed and hooks received each change.
            publish.append(f"$JS.ACK.{name}.*.>")
    for purged in grant.purges:
        publish += [f"$JS.API.STREAM.{verb}.{purged.name}" for verb in ("PURGE", "MSG.DELETE")]
    subscribe = [f"{inbox_prefix(user)}.>", *grant.serves]
    if grant.serves:
        subscribe += ["$SRV.>"]
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=tuple(subscribe))
