"""
Permissions of every user of the mesh's NATS account.

`millrace nats-config` prints them: a user may do what stands here and nothing else. The grant of a service stands in
its row of `shared.contracts.services`; here are those of the users that are no service.
"""

from shared.contracts import jetstream
from shared.contracts.consumers import CONSUMERS, PUSH_ENGINE_READER
from shared.contracts.permissions import SERVICE_VERBS, Grant, Permissions, permissions_of, service_info
from shared.contracts.services import SERVICE_NAMES, SERVICES
from shared.contracts.streams import ALERTS, BUCKETS, CONFIG, EVENTS, PUSH, STREAMS
from shared.contracts.subjects import RESOLVE_MEDIA, STORE_MEDIA, alert, connector_test

PROVISION = "provision"

_CONNECTOR_TESTS = tuple(
    test for service in SERVICES for test in service.own_grant.serves if test == connector_test(service.name)
)
_SERVICE_INFO = tuple(
    subject
    for verb in SERVICE_VERBS
    for subject in (
        service_info(verb),
        *(service_info(verb, name) for name in SERVICE_NAMES),
        *(service_info(verb, name, "*") for name in SERVICE_NAMES),
    )
)

GRANTS: dict[str, Grant] = {
    **{service.name: service.grant for service in SERVICES},
    PROVISION: Grant(makes=(*STREAMS, *BUCKETS, *CONSUMERS), writes=(alert(PROVISION, "*", "*"),)),
    "operator": Grant(
        looks=(CONFIG, ALERTS),
        scans=((CONFIG.stream, CONFIG.subject_of(">")), (ALERTS.name, alert("*", "*", "*"))),
        writes=(CONFIG.subject_of(">"),),
        requests=(*_SERVICE_INFO, *_CONNECTOR_TESTS),
    ),
    "publisher": Grant(looks=(EVENTS,), writes=EVENTS.subjects, requests=(STORE_MEDIA, RESOLVE_MEDIA)),
    "push-engine": Grant(looks=(EVENTS, PUSH), reads=(PUSH_ENGINE_READER,), writes=EVENTS.subjects),
}
"""
Every user by name. `provision` makes streams, buckets and consumers, and is as mighty as the account: no process that
takes anything from outside has its key. `operator` is the command line, `publisher` a program of the platform that puts
events and media in, `push-engine` the platform's sender of pushes. None of the four is a service of ours.
"""


def permissions(user: str) -> Permissions:
    """The subjects that a user of `GRANTS` may publish and subscribe."""
    return permissions_of(user, GRANTS[user])


def denials(user: str) -> tuple[str, ...]:
    """
    Subjects that have to be denied although `permissions` allows them.

    A user that scans a stream names its short-lived consumers itself, so it is allowed every name. That includes the
    names of durable consumers. It may change or delete none of them, and neither read nor acknowledge by another's.
    """
    scanned = {stream for stream, _ in GRANTS[user].scans}
    denied: list[str] = []
    for consumer in CONSUMERS:
        stream, name = consumer.stream.name, consumer.name
        if stream not in scanned:
            continue
        denied += [jetstream.consumer_create(stream, name, ">"), jetstream.consumer_delete(stream, name)]
        if consumer not in (*GRANTS[user].reads, *GRANTS[user].follows):
            denied.append(jetstream.consumer_info(stream, name))
        if consumer not in GRANTS[user].reads:
            denied += [
                jetstream.next_messages(stream, name),
                f"$JS.ACK.{stream}.{name}.>",
            ]
    return tuple(denied)
