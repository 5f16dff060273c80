"""
Table of the services of the mesh: the one place, beside its folder and its block in compose.yaml, that names a service.

The command line, the permissions and the tests read it. It imports no service.
"""

from msgspec import Struct

from shared.contracts.consumers import HOOKS_CONSUMERS, PROFILES_READER, PUSH_ENGINE_READER
from shared.contracts.keys import LEASES_OF_HOOKS
from shared.contracts.permissions import Grant
from shared.contracts.streams import (
    ALERTS,
    CLAIMS,
    CONFIG,
    DEFENDER,
    DLQ,
    EVENTS,
    FILES,
    HOOKS,
    LAKE,
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
)
from shared.contracts.subjects import (
    EVERY_EVENT,
    RESOLVE_MEDIA,
    STORE_MEDIA,
    alert,
    connector_test,
    dead_letters_of,
    object_stored,
    profile_update,
    push_send,
)


class ServiceEntry(Struct, frozen=True, kw_only=True):
    """One service. Its folder is `services/<name>`; `name` is also its NATS user and its name in logs and metrics."""

    name: str
    http_port: int
    """Port of its HTTP interface in `millrace up` and in compose.yaml."""
    ports: dict[str, int] = {}
    """Further listeners by name. The setting `<name>_port` moves one, and the service announces its address."""
    settings: str = ""
    """
    Prefix of the settings that this service alone reads; empty where it has none.

    They are the service's own subclass of `Settings`. Every other reader passes over variables with this prefix.
    """
    kinds: tuple[str, ...] = ()
    """
    Keys in CONFIG of the kinds of configuration that it owns; it reads and writes these.

    `apps.*` is an app and `connectors.*.<kind>` a connector of an app. `<kind>.*.*` is a table
    `[apps.<app>.<kind>.<id>]` of a configuration file, which `millrace apply` puts to `/v1/apps/<app>/<kind>/<id>`,
    with hyphens for underscores. Other keys have no table in a configuration file.
    """
    own_grant: Grant
    """Permissions beyond those that every service has; `grant` adds the common ones."""

    @property
    def module(self) -> str:
        """The name of its Python package."""
        return self.name.replace("-", "_")

    @property
    def grant(self) -> Grant:
        """Its own permissions, its configuration, the tokens, and its alerts, of which it reads those of no app."""
        config = tuple(CONFIG.subject_of(kind) for kind in self.kinds)
        return Grant(
            looks=(*self.own_grant.looks, ALERTS, CONFIG),
            reads=self.own_grant.reads,
            follows=self.own_grant.follows,
            scans=(
                *((CONFIG.stream, key) for key in (*config, CONFIG.subject_of("tokens.*"))),
                (ALERTS.name, alert(self.name, "-", "*")),
                *self.own_grant.scans,
            ),
            gets=self.own_grant.gets,
            writes=(*self.own_grant.writes, alert(self.name, "*", "*"), *config),
            requests=self.own_grant.requests,
            serves=self.own_grant.serves,
            purges=self.own_grant.purges,
            service=self.name,
        )


SERVICES = (
    ServiceEntry(
        name="storage",
        http_port=8081,
        settings="storage_",
        kinds=("connectors.*.amazon-storage", "connectors.*.azure-storage"),
        own_grant=Grant(
            looks=(OBJECTS, MEDIA),
            scans=((MEDIA.stream, MEDIA.subject_of(">")),),
            gets=(MEDIA,),
            writes=(object_stored("*"), MEDIA.subject_of(">")),
            serves=(STORE_MEDIA, RESOLVE_MEDIA, connector_test("storage")),
        ),
    ),
    ServiceEntry(
        name="hooks",
        http_port=8082,
        kinds=("connectors.*.kinesis", "hooks.*.*"),
        own_grant=Grant(
            looks=(EVENTS, DLQ, PROFILES, LEASES, HOOKS),
            reads=HOOKS_CONSUMERS,
            scans=(
                (PROFILES.stream, PROFILES.subject_of(">")),
                (EVENTS.name, EVERY_EVENT),
                (DLQ.name, dead_letters_of("hooks")),
                (LEASES.stream, LEASES.subject_of(LEASES_OF_HOOKS)),
                (HOOKS.stream, HOOKS.subject_of(">")),
            ),
            gets=(PROFILES, LEASES, HOOKS),
            writes=(
                *EVENTS.subjects,
                dead_letters_of("hooks"),
                LEASES.subject_of(LEASES_OF_HOOKS),
                HOOKS.subject_of(">"),
            ),
            serves=(connector_test("hooks"),),
            purges=(DLQ,),
        ),
    ),
    ServiceEntry(
        name="ftp-gateway",
        http_port=8083,
        ports={"sftp": 2022},
        settings="sftp_",
        kinds=("apps.*", "ftp_users.*.*", "host_keys.*", "remotes.*.*"),
        own_grant=Grant(
            looks=(PUSH, PROFILE_UPDATES, FILES, DLQ, PROFILES, DEFENDER, SUMMARIES, REMOTES),
            reads=(PROFILES_READER,),
            follows=(PUSH_ENGINE_READER,),
            scans=(
                (PUSH.name, push_send("*", "*")),
                (PROFILE_UPDATES.name, profile_update("*", "*")),
                (FILES.name, FILES.subjects[0]),
                (PROFILES.stream, PROFILES.subject_of(">")),
                (DEFENDER.stream, DEFENDER.subject_of(">")),
                (SUMMARIES.stream, SUMMARIES.subject_of("*")),
                (REMOTES.stream, REMOTES.subject_of(">")),
            ),
            gets=(PUSH, PROFILE_UPDATES, FILES, PROFILES, DEFENDER, SUMMARIES, REMOTES),
            writes=(
                push_send("*", "*"),
                profile_update("*", "*"),
                FILES.subjects[0],
                dead_letters_of("ftp-gateway"),
                PROFILES.subject_of(">"),
                DEFENDER.subject_of(">"),
                SUMMARIES.subject_of("*"),
                REMOTES.subject_of(">"),
            ),
            purges=(PUSH, PROFILE_UPDATES),
        ),
    ),
    ServiceEntry(
        name="exporter",
        http_port=8084,
        settings="exporter_",
        kinds=("exports.*.*", "external_ids.*", "replays.*"),
        own_grant=Grant(
            looks=(EVENTS, RUNS, PLANS, LAKE, CLAIMS),
            scans=(
                (EVENTS.name, EVERY_EVENT),
                (RUNS.stream, RUNS.subject_of(">")),
                (PLANS.stream, PLANS.subject_of(">")),
                (LAKE.stream, LAKE.subject_of(">")),
                (CLAIMS.stream, CLAIMS.subject_of("*")),
            ),
            gets=(RUNS, PLANS, LAKE, CLAIMS),
            writes=(RUNS.subject_of(">"), PLANS.subject_of(">"), LAKE.subject_of(">"), CLAIMS.subject_of("*")),
            serves=(connector_test("exporter"),),
        ),
    ),
)
"""In the order of their ports, in which the command line shows them."""

SERVICE_NAMES = tuple(service.name for service in SERVICES)
