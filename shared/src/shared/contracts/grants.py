"""
Permissions of every user of the mesh's NATS account.

`millrace nats-config` prints them: a service may do what stands here and nothing else.
"""

from msgspec import Struct

from shared.contracts.streams import (
    ALERTS,
    CONFIG,
    DEFENDER,
    DLQ,
    EVENTS,
    FILES,
    HOOKS,
    LEASES,
    MEDIA,
    OBJECTS,
    PLANS,
    PROFILE_UPDATES,
    PROFILES,
    PUSH,
    REMOTES,
    RUNS,
    SUMMARIES,
    Bucket,
    Stream,
)
from shared.contracts.subjects import (
    PARTITIONS,
    PROFILES_CONSUMER,
    PUSH_ENGINE_CONSUMER,
    RESOLVE_MEDIA,
    STORE_MEDIA,
    alert,
    connector_test,
    dead_letter,
    hooks_consumer,
    object_stored,
    profile_update,
    push_send,
)


class Grant(Struct, frozen=True, kw_only=True):
    """
    What one user of NATS needs. Expanded to subjects by `permissions`.

    `makes` are the streams and buckets that it creates and updates at start, `reads` are pairs of stream and durable,
    `scans` pairs of stream and filter for short-lived consumers and direct gets. `writes`, `asks` and `answers` are
    subjects that it publishes on, requests and serves. From a stream of `purges` it may take messages out: NATS has no
    narrower right than one for the whole stream, so whoever has it is the one to mind whose messages they are.
    """

    makes: tuple[Stream | Bucket, ...] = ()
    reads: tuple[tuple[Stream, str], ...] = ()
    scans: tuple[tuple[str, str], ...] = ()
    writes: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    purges: tuple[Stream, ...] = ()


def _config(*kinds: str) -> tuple[tuple[str, str], ...]:
    return tuple((CONFIG.stream, f"$KV.CONFIG.{kind}") for kind in (*kinds, "tokens.*"))


GRANTS: dict[str, Grant] = {
    "storage": Grant(
        makes=(OBJECTS, ALERTS, CONFIG, MEDIA),
        scans=(
            *_config("connectors.*.amazon-storage", "connectors.*.azure-storage"),
            (MEDIA.stream, "$KV.MEDIA.>"),
        ),
        writes=(
            object_stored("*"),
            alert("storage", "*", "*"),
            "$KV.CONFIG.connectors.*.amazon-storage",
            "$KV.CONFIG.connectors.*.azure-storage",
            "$KV.MEDIA.>",
        ),
        answers=(STORE_MEDIA, RESOLVE_MEDIA, connector_test("storage")),
    ),
    "hooks": Grant(
        makes=(EVENTS, DLQ, ALERTS, CONFIG, PROFILES, LEASES, HOOKS),
        reads=tuple((EVENTS, hooks_consumer(partition)) for partition in range(PARTITIONS)),
        scans=(
            *_config("connectors.*.kinesis", "hooks.*.*"),
            (PROFILES.stream, "$KV.PROFILES.>"),
            (EVENTS.name, EVENTS.subjects[0]),
            (DLQ.name, dead_letter("hooks", "*", "*", "*")),
            (LEASES.stream, "$KV.LEASES.hooks.>"),
            (HOOKS.stream, "$KV.HOOKS.>"),
        ),
        writes=(
            EVENTS.subjects[0],
            dead_letter("hooks", "*", "*", "*"),
            alert("hooks", "*", "*"),
            "$KV.CONFIG.connectors.*.kinesis",
            "$KV.CONFIG.hooks.*.*",
            "$KV.LEASES.hooks.>",
            "$KV.HOOKS.>",
        ),
        answers=(connector_test("hooks"),),
        purges=(DLQ,),
    ),
    "ftp-gateway": Grant(
        makes=(PUSH, PROFILE_UPDATES, FILES, DLQ, ALERTS, CONFIG, PROFILES, DEFENDER, SUMMARIES, REMOTES),
        reads=((PROFILE_UPDATES, PROFILES_CONSUMER),),
        scans=(
            *_config("apps.*", "ftp_users.*.*", "host_keys.*", "remotes.*.*"),
            (PUSH.name, push_send("*", "*")),
            (PROFILE_UPDATES.name, profile_update("*", "*")),
            (FILES.name, "ftp.file.*.*"),
            (PROFILES.stream, "$KV.PROFILES.>"),
            (DEFENDER.stream, "$KV.DEFENDER.>"),
            (SUMMARIES.stream, "$KV.SUMMARIES.*"),
            (REMOTES.stream, "$KV.REMOTES.>"),
        ),
        writes=(
            push_send("*", "*"),
            profile_update("*", "*"),
            "ftp.file.*.*",
            dead_letter("ftp-gateway", "*", "*", "*"),
            alert("ftp-gateway", "*", "*"),
            "$KV.CONFIG.apps.*",
            "$KV.CONFIG.ftp_users.*.*",
            "$KV.CONFIG.host_keys.*",
            "$KV.CONFIG.remotes.*.*",
            "$KV.PROFILES.>",
            "$KV.DEFENDER.>",
            "$KV.SUMMARIES.*",
            "$KV.REMOTES.>",
        ),
        asks=(f"$JS.API.DIRECT.GET.{PROFILES.stream}",),
    ),
    "exporter": Grant(
        makes=(EVENTS, ALERTS, CONFIG, RUNS, PLANS),
        scans=(
            *_config("exports.*.*"),
            (EVENTS.name, EVENTS.subjects[0]),
            (RUNS.stream, "$KV.RUNS.>"),
            (PLANS.stream, "$KV.PLANS.>"),
        ),
        writes=(
            alert("exporter", "*", "*"),
            "$KV.CONFIG.exports.*.*",
            "$KV.RUNS.>",
            "$KV.PLANS.>",
        ),
        answers=(connector_test("exporter"),),
    ),
    "operator": Grant(
        makes=(CONFIG,),
        scans=((CONFIG.stream, "$KV.CONFIG.>"),),
        writes=("$KV.CONFIG.>",),
        asks=("$SRV.PING", "$SRV.INFO", "$SRV.STATS", *map(connector_test, ("storage", "hooks", "exporter"))),
    ),
    "publisher": Grant(makes=(EVENTS,), writes=(EVENTS.subjects[0],), asks=(STORE_MEDIA, RESOLVE_MEDIA)),
    "push-engine": Grant(
        makes=(EVENTS, PUSH),
        reads=((PUSH, PUSH_ENGINE_CONSUMER),),
        writes=(EVENTS.subjects[0],),
    ),
}
"""
Every user of the mesh's NATS account. `operator` is the command line, `publisher` a program of the platform that puts
events and media in, `push-engine` the platform's sender of pushes. None of the three is a service of ours.
"""


class Permissions(Struct, frozen=True, kw_only=True):
    """Subjects a user may publish and subscribe. Replies to a received request are always allowed, once."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """Each user has inboxes of its own, so that nobody can listen to another's replies."""
    return f"_INBOX_{user}"


def permissions(user: str) -> Permissions:
    """What a user may do, from its grant (JetStream API subjects: NATS ADR-1, ADR-31)."""
    grant = GRANTS[user]
    publish: list[str] = [*grant.writes, *grant.asks]
    for made in grant.makes:
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
        if grant.answers:
            # Nobody acks what he scans. But the server remembers for a minute each subject at which a user who answers
            # requests might answer and has no other right to; every message of a scan names one. That took a fifth of
            # its time while 300,000 profiles changed, and hooks was told of each.
            publish.append(f"$JS.ACK.{name}.*.>")
    for purged in grant.purges:
        publish += [f"$JS.API.STREAM.{verb}.{purged.name}" for verb in ("PURGE", "MSG.DELETE")]
    subscribe = [f"{inbox_prefix(user)}.>", *grant.answers]
    if grant.answers:
        subscribe += ["$SRV.>"]
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=tuple(subscribe))
