"""
Permissions of every user of the mesh's NATS account.

`millrace nats-config` prints them: a user may do what stands here and nothing else. The grant of a service stands in
its row of `shared.contracts.services`; here are those of the users that are no service.
"""

from shared.contracts.permissions import Grant, Permissions, permissions_of
from shared.contracts.services import SERVICES
from shared.contracts.streams import CONFIG, EVENTS, PUSH
from shared.contracts.subjects import PUSH_ENGINE_CONSUMER, RESOLVE_MEDIA, STORE_MEDIA, connector_test

_CONNECTOR_TESTS = tuple(
    test for service in SERVICES for test in service.own_grant.serves if test == connector_test(service.name)
)

GRANTS: dict[str, Grant] = {
    **{service.name: service.grant for service in SERVICES},
    "operator": Grant(
        creates=(CONFIG,),
        scans=((CONFIG.stream, CONFIG.subject_of(">")),),
        writes=(CONFIG.subject_of(">"),),
        requests=("$SRV.PING", "$SRV.INFO", "$SRV.STATS", *_CONNECTOR_TESTS),
    ),
    "publisher": Grant(creates=(EVENTS,), writes=EVENTS.subjects, requests=(STORE_MEDIA, RESOLVE_MEDIA)),
    "push-engine": Grant(
        creates=(EVENTS, PUSH),
        reads=((PUSH, PUSH_ENGINE_CONSUMER),),
        writes=EVENTS.subjects,
    ),
}
"""
Every user by name. `operator` is the command line, `publisher` a program of the platform that puts events and media in,
`push-engine` the platform's sender of pushes. None of the three is a service of ours.
"""


def permissions(user: str) -> Permissions:
    """The subjects that a user of `GRANTS` may publish and subscribe."""
    return permissions_of(user, GRANTS[user])


def consumers_of_others(user: str) -> tuple[str, ...]:
    """
    Subjects that have to be denied although `permissions` allows them.

    A user that scans a stream names its short-lived consumers itself, so it is allowed every name. That includes the
    names of durable consumers by which others read the stream: to pull or acknowledge their messages, or to delete
    them.
    """
    scanned = {stream for stream, _ in GRANTS[user].scans}
    others = {
        (stream.name, durable)
        for other, grant in GRANTS.items()
        for stream, durable in grant.reads
        if other != user and stream.name in scanned
    }
    return tuple(
        subject
        for stream, durable in sorted(others)
        for subject in (
            f"$JS.API.CONSUMER.*.{stream}.{durable}",
            f"$JS.API.CONSUMER.CREATE.{stream}.{durable}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
            f"$JS.ACK.{stream}.{durable}.>",
        )
    )
