"""
A whole mesh on this machine: NATS and the services as real processes on one folder, for `up`, `demo` and `bench`.

The services are started, never imported. The verbs decide what is printed.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from millrace.machine.child_process import Child, start_child
from millrace.mesh.access import ELECTION, ELECTION_S, access_of_folder, open_registry
from millrace.mesh.folder import Addresses, MeshFolder
from millrace.mesh.unsigned import check_keys, find_unsigned, sign_entry
from millrace.nats_servers.cluster import NatsCluster
from millrace.nats_servers.config import seed_file
from millrace.nats_servers.server import NatsServer
from millrace.terminal.event_loop import first_error
from shared.config.registry import Registry
from shared.config.secret_keys import UnsignedError
from shared.config.tokens import ADMIN, TOKENS, Token, token_hash
from shared.contracts.grants import PROVISION
from shared.contracts.services import SERVICE_NAMES, SERVICES, ServiceEntry
from shared.errors import ConflictError, MillraceError, NotFoundError, UnavailableError
from shared.messaging.provisioning.making import Provisioned, provision_mesh
from shared.runtime.retry import Backoff, retry
from shared.runtime.settings import Settings, child_environment, read_settings, variables

READY_S = 45.0
"""Time limit of a start: imports on a cold disk and checks of streams. A start takes about two seconds."""
PROVISION_WAIT_S = 5.0
PROVISIONED_BY = ("events_max_age_h", "events_max_bytes", "stream_max_bytes")
"""Settings of streams, which no service reads."""
STOP_DEADLINE_S = 25.0
BEYOND_DEADLINE_S = 5.0
"""Time between a service's own deadline and its kill."""
STABLE_S = 60.0
"""A service that has run for this long is restarted at once when it ends, however often it ended before."""


class LocalMesh:
    """
    The mesh of one folder, stopped when the block is left, and by the kernel when this process dies.

    Args:
        folder: Its lock is held by the caller.
        nats_nodes: 1, or 3 for a cluster with three copies of every stream.
        ports: Ports to take, by name of a service, `sftp` or `nats` (`nats-1` to `nats-3`); free ones otherwise.
        settings: Further settings of every service, by field of `shared.runtime.settings.Settings`. A setting that one
            service alone reads goes to that service.
    """

    def __init__(
        self,
        folder: MeshFolder,
        *,
        nats_nodes: int = 1,
        ports: Mapping[str, int] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.children: dict[str, Child] = {}
        self.provisioned: list[Provisioned] = []
        """Things in NATS that this start has made or put right."""
        self.nats: NatsServer | NatsCluster
        self._replicas = nats_nodes
        self._ports = dict(ports or {})
        self._settings = dict(settings or {})
        self._urls: dict[str, str] = {}
        self._listeners: dict[str, str] = {}
        """Addresses of the listeners other than HTTP, by name."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except ExceptionGroup as group:
            await self._stack.aclose()
            raise first_error(group) from group
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        """
        Start NATS, provision it, start the services, and publish the addresses.

        Raises:
            ConflictError: A port that was asked for is taken, or the folder holds another kind of mesh.
            UnavailableError: A process ended, or was not ready in time; names it and its log.
        """
        self._check_nodes()
        seeds = self.folder.seeds()
        self.folder.secret_keys()
        nats_ports = [self._ports.get(name, 0) for name in self._nats_names()]
        if self._replicas == 1:
            self.nats = NatsServer(self.folder.nats, users=seeds, port=nats_ports[0])
        else:
            known = nats_ports if all(nats_ports) else ()
            self.nats = NatsCluster(self.folder.nats, nodes=self._replicas, users=seeds, ports=known)
        await self._stack.enter_async_context(self.nats)
        self.provisioned = await provision_mesh(self._provisioning(seeds[PROVISION]), wait_s=PROVISION_WAIT_S)
        await self._prepare_configuration()
        self._stack.push_async_callback(self._stop_services)
        async with asyncio.TaskGroup() as starting:
            for service in SERVICES:
                starting.create_task(self._start_service(service))
        addresses = Addresses(
            nats=self.nats.url,
            services={name: self._urls[name] for name in SERVICE_NAMES},
            sftp=self._listeners["sftp"],
        )
        self._stack.enter_context(self.folder.announced(addresses))
        self._remember_ports()

    def _check_nodes(self) -> None:
        """Check the number of nodes. Raises `ConflictError` when the stored data belongs to another number."""
        found = (
            3 if (self.folder.nats / "nats-1").exists() else 1 if (self.folder.nats / "jetstream").exists() else None
        )
        if found not in (None, self._replicas):
            raise ConflictError(f"{self.folder.root} holds the data of {found} NATS node(s); use --nats-nodes {found}")

    def _nats_names(self) -> list[str]:
        return ["nats"] if self._replicas == 1 else [f"nats-{node + 1}" for node in range(self._replicas)]

    def _remember_ports(self) -> None:
        nats_ports = [self.nats.port] if isinstance(self.nats, NatsServer) else self.nats.ports
        self._ports = dict(zip(self._nats_names(), nats_ports, strict=True))
        self._ports |= {name: _port_of(address) for name, address in (self._urls | self._listeners).items()}
        self.folder.remember_ports(self._ports)

    def _provisioning(self, seed: str) -> Settings:
        """Settings by which NATS is provisioned. Of those of the services it takes the ones on streams."""
        known = {name: value for name, value in self._settings.items() if name.removesuffix("_file") in PROVISIONED_BY}
        given = {"nats_url": self.nats.url, "nats_seed": seed, "nats_replicas": self._replicas}
        return read_settings(Settings, variables(known | given))

    def _environment(self, service: ServiceEntry) -> dict[str, str]:
        settings: dict[str, object] = {
            "nats_url": self.nats.url,
            "nats_seed_file": seed_file(self.folder.keys, service.name),
            "secret_keys_file": self.folder.secret_keys_file,
            "http_port": self._ports.get(service.name, 0),
            "announce_file": self.folder.announcement(service.name),
            "data_dir": self.folder.data(service.name),
            "reports_dir": self.folder.data("reports"),
            "stop_deadline_s": STOP_DEADLINE_S,
            "log_format": "console",
            **{f"{listener}_port": self._ports.get(listener, 0) for listener in service.ports},
        }
        of_others = tuple(other.settings for other in SERVICES if other.settings and other != service)
        of_others += PROVISIONED_BY
        further = {name: value for name, value in self._settings.items() if not name.startswith(of_others)}
        return child_environment(**(settings | further))

    async def _start_service(self, service: ServiceEntry) -> None:
        """Start one service and wait until it is ready. Raises `UnavailableError`."""
        name = service.name
        announcement = self.folder.announcement(name)
        announcement.parent.mkdir(parents=True, exist_ok=True)
        announcement.unlink(missing_ok=True)
        self.folder.data(name).mkdir(parents=True, exist_ok=True)
        # -P: nothing in the working directory may stand in for a service.
        command = (sys.executable, "-P", "-m", service.module)
        child = await start_child(name, command, environment=self._environment(service), log=self.folder.log(name))
        self.children[name] = child
        try:
            async with asyncio.timeout(READY_S):
                while not announcement.exists():
                    if not child.running:
                        raise child.ended("before it was ready")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise UnavailableError(f"{name} was not ready within {READY_S:.0f} s; its log is {child.log}") from None
        announced = msgspec.json.decode(announcement.read_bytes(), type=dict[str, str])
        self._urls[name] = announced["http"]
        self._listeners |= {listener: announced[listener] for listener in service.ports}

    async def restart(self, service: str) -> None:
        """Start a service that has ended, where it was. Raises `UnavailableError`."""
        await self._start_service(next(entry for entry in SERVICES if entry.name == service))

    async def _prepare_configuration(self) -> None:
        """Sign the entries that a release before has left, once, and issue the token of this folder."""
        access = access_of_folder(self.folder, self.nats.url)
        token = self.folder.admin_token()
        async with open_registry(access) as registry:
            if self.folder.is_configuration_signed():
                file = self.folder.secret_keys_file
                await retry(lambda: check_keys(registry, file), backoff=ELECTION, deadline_s=ELECTION_S)
            else:
                await retry(lambda: _sign_configuration(registry), backoff=ELECTION, deadline_s=ELECTION_S)
                self.folder.remember_signed_configuration()
            await retry(lambda: _issue(registry, token), backoff=ELECTION, deadline_s=ELECTION_S)

    async def _stop_services(self) -> None:
        deadline_s = STOP_DEADLINE_S + BEYOND_DEADLINE_S
        await asyncio.gather(*(child.stop(deadline_s) for child in self.children.values()))

    def unclean_exits(self) -> list[str]:
        """Return a line for each service that did not exit with 0, once the block is left."""
        return [
            f"{child.name} {child.exit_description()}; its log is {child.log}"
            for child in self.children.values()
            if child.process.returncode != 0
        ]

    async def supervise(self, print_line: Callable[[str], None]) -> None:
        """Restart processes that end, until cancelled; the wait grows while a process ends again and again."""
        async with asyncio.TaskGroup() as tasks:
            for name in SERVICE_NAMES:
                tasks.create_task(
                    _restart_when_ended(partial(self._child, name), partial(self.restart, name), print_line)
                )
            for node in range(self._replicas):
                tasks.create_task(
                    _restart_when_ended(partial(self._node, node), partial(self.nats.restart, node), print_line)
                )

    def _child(self, service: str) -> Child:
        return self.children[service]

    def _node(self, node: int) -> Child:
        return self.nats.children[node]


async def _sign_configuration(registry: Registry) -> None:
    """Sign every entry that is not signed, without the tokens: `millrace sign` shows those."""
    for entry in await find_unsigned(registry):
        if not entry.is_token:
            await sign_entry(registry, entry.stored)


async def _issue(registry: Registry, token: str) -> None:
    """Issue the token unless it is there already. A release before issued it without a signature."""
    try:
        await registry.get(TOKENS, token_hash(token))
    except (NotFoundError, UnsignedError):
        issued = Token(scopes=(ADMIN,), name="admin-token of this folder", created_at=datetime.now(UTC))
        await registry.put(TOKENS, token_hash(token), "", issued)


async def _restart_when_ended(
    current: Callable[[], Child], restart: Callable[[], Awaitable[None]], print_line: Callable[[str], None]
) -> None:
    clock = asyncio.get_running_loop().time
    delays = Backoff(first_s=0.5, max_s=30.0).delays()
    while True:
        child, since = current(), clock()
        await child.wait()
        if clock() - since > STABLE_S:
            delays = Backoff(first_s=0.5, max_s=30.0).delays()
        delay_s = next(delays)
        print_line(
            f"{child.name} {child.exit_description()}; starting it again in {delay_s:.1f} s (its log is {child.log})"
        )
        await asyncio.sleep(delay_s)
        try:
            await restart()
        except MillraceError as error:
            print_line(str(error))
        else:
            print_line(f"{child.name} is ready again")


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])
