"""
Construction of the ftp-gateway service: its parts, in the order of their dependencies. It holds no rules; nothing is
constructed elsewhere.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from zoneinfo import ZoneInfo

from ftp_gateway import SERVICE_NAME
from ftp_gateway.access.accounts import Account, Passwords
from ftp_gateway.access.bans import BanRules
from ftp_gateway.access.defender import Defender
from ftp_gateway.access.host_keys import HOST_KEYS, OWNER, HostKeys
from ftp_gateway.config import APPS, FTP_USERS, FtpGatewaySettings, account_of, rules_of
from ftp_gateway.handlers import ProfileUpdates
from ftp_gateway.model.rules import FileRules
from ftp_gateway.parsing.worker_pool import ParserPool
from ftp_gateway.processing.pipeline import FilePipeline
from ftp_gateway.processing.scheduler import FileScheduler
from ftp_gateway.processing.stream_room import StreamRoom
from ftp_gateway.remotes.clients.ftplib_client import check_internals
from ftp_gateway.remotes.clients.ftps import check_certificates, identify_ftps, open_ftps_remote
from ftp_gateway.remotes.clients.sftp import identify_sftp, open_sftp_remote
from ftp_gateway.remotes.clients.sftp_keys import check_keys
from ftp_gateway.remotes.connection_test import probe_remote
from ftp_gateway.remotes.error_report_delivery import ErrorReportDelivery
from ftp_gateway.remotes.lock import lock_remote
from ftp_gateway.remotes.pull import Puller, RemoteJob, RemoteServer
from ftp_gateway.remotes.remote import REMOTES, Remote
from ftp_gateway.remotes.scheduler import PullScheduler, RemoteKey
from ftp_gateway.remotes.service import RemoteService
from ftp_gateway.remotes.state_store import RemoteStateStore
from ftp_gateway.routes import ROUTES
from ftp_gateway.sftp.app_report_folder import AppReportFolder
from ftp_gateway.sftp.host_key_algorithms import ensure_host_keys
from ftp_gateway.sftp.server import ServerOptions, SftpServer
from ftp_gateway.spool.store import Spool
from ftp_gateway.state import State
from ftp_gateway.summaries.sender import Subscription, SummarySender
from shared.client_addresses import Network, parse_network
from shared.contracts import streams
from shared.contracts.consumers import PROFILES_READER
from shared.errors import InvalidError, NotFoundError
from shared.mail import Mailer
from shared.messaging.consumers import open_pull
from shared.objects.app_reports import open_reports
from shared.profiles.store import Profiles
from shared.service import Mesh, Service


def now() -> datetime:
    return datetime.now(UTC)


def proxies_of(text: str) -> tuple[Network, ...]:
    """Parse networks, separated by commas. Raises `InvalidError`."""
    try:
        return tuple(parse_network(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InvalidError("expected addresses and ranges, separated by commas", field="sftp_proxies") from None


async def build(mesh: Mesh) -> State:
    """Open every part; the SFTP server last, so that a client that signs in finds a service that works."""
    check_internals()
    settings = mesh.settings_as(FtpGatewaySettings)
    directory = Path(settings.data_dir) / "ftp"
    apps = mesh.registry.view(APPS)
    users = mesh.registry.view(FTP_USERS)

    def rules(app_key: str) -> FileRules:
        entry = apps.get(app_key)
        return rules_of(entry.value) if entry else FileRules()

    # Every connection asks after every change of any user, and parsing keys and networks takes its time.
    accounts = lru_cache(maxsize=4096)(account_of)

    def find_account(app_key: str, name: str) -> Account | None:
        entry = users.get(app_key, name)
        return accounts(entry) if entry else None

    first_host_keys = await ensure_host_keys(mesh.registry, directory / "host_key", now)
    host_key_view = mesh.registry.view(HOST_KEYS)

    def host_keys() -> HostKeys:
        entry = host_key_view.get(OWNER)
        return entry.value if entry else first_host_keys

    proxies = proxies_of(settings.sftp_proxies)
    spool = Spool(directory / "spool", now)
    store = await mesh.enter(open_reports(settings, mesh.outgoing))
    passwords = await mesh.enter(Passwords())
    profiles = Profiles(mesh.bus)
    parsers = await mesh.enter(ParserPool(profiles.unknown))
    pipeline = FilePipeline(spool=spool, bus=mesh.bus, parsers=parsers, metrics=mesh.metrics, clock=now)
    scheduler = FileScheduler(
        spool=spool,
        bus=mesh.bus,
        rules_of=rules,
        pipeline=pipeline,
        metrics=mesh.metrics,
        clock=now,
    )
    mesh.spawn("files", scheduler.run())
    mesh.intake("files", scheduler)
    room = StreamRoom(mesh.bus, lambda: {upload.id for upload in spool.uploads()})
    mesh.spawn("stream room", room.run())

    pull = await mesh.enter(open_pull(mesh.bus, PROFILES_READER, capacity=64))
    updates = ProfileUpdates(mesh.bus, pull, profiles)
    mesh.spawn("profiles", updates.run())
    mesh.intake("profiles", updates)

    def subscriptions() -> Iterator[Subscription]:
        for entry in apps.all():
            app, app_key = entry.value, entry.app_key
            if app.summary is not None:
                name = app.display_name or app_key
                yield Subscription(app_key=app_key, name=name, zone=ZoneInfo(app.timezone), summary=app.summary)

    mailer = Mailer(settings, mesh.outgoing.tls)
    summaries = SummarySender(mesh.bus, mailer, subscriptions, now)
    apps.on_change(summaries.changed)
    mesh.spawn("summaries", summaries.run())

    ban_rules = BanRules(failures=settings.sftp_ban_failures, first=timedelta(seconds=settings.sftp_ban_s))
    defender = Defender(mesh.bus, ban_rules, now)
    mesh.spawn("bans", defender.run())

    sftp = await mesh.enter(
        SftpServer(
            ServerOptions(
                host=settings.sftp_host,
                port=settings.sftp_port,
                connections=settings.sftp_connections,
                connections_per_address=settings.sftp_connections_per_address,
                login_s=settings.sftp_login_s,
                idle_s=settings.sftp_idle_s,
                proxies=proxies,
                spool=spool,
                report_folder=AppReportFolder(store, asyncio.get_running_loop().time),
                find_account=find_account,
                passwords=passwords,
                defender=defender,
                host_keys=host_keys,
                metrics=mesh.metrics,
                clock=now,
            )
        )
    )
    users.on_change(sftp.recheck)
    mesh.spawn("sessions", sftp.run())
    mesh.intake("sftp", sftp)
    mesh.ping("sftp", sftp.ping)
    mesh.announce("sftp", sftp.address)
    return State(
        bus=mesh.bus,
        spool=spool,
        rules_of=rules,
        passwords=passwords,
        defender=defender,
        mailer=mailer,
        remotes=_remotes(mesh, spool, directory / "spool"),
    )


def _remotes(mesh: Mesh, spool: Spool, directory: Path) -> RemoteService:
    """Tie the pulls from customers' own servers together."""
    remotes = mesh.registry.view(REMOTES)
    allow_private = mesh.settings.allow_private_endpoints
    sender = ErrorReportDelivery(spool, now)

    def open_server(remote: Remote) -> AbstractAsyncContextManager[RemoteServer]:
        opened = open_sftp_remote if remote.protocol == "sftp" else open_ftps_remote
        return opened(remote, mesh.outgoing)

    async def identify(remote: Remote) -> str:
        return await (identify_sftp if remote.protocol == "sftp" else identify_ftps)(remote, mesh.outgoing)

    async def check(remote: Remote) -> None:
        remote.check(allow_private=allow_private)
        await asyncio.to_thread(check_keys if remote.protocol == "sftp" else check_certificates, remote)

    def jobs() -> dict[RemoteKey, RemoteJob]:
        return {
            (entry.app_key, entry.id): RemoteJob(
                app_key=entry.app_key, id=entry.id, revision=entry.revision, remote=entry.value
            )
            for entry in remotes.all()
            if entry.value.active
        }

    async def is_deleted(key: RemoteKey) -> bool:
        try:
            await mesh.registry.get(REMOTES, *key)
        except NotFoundError:
            return True
        return False

    def puller(job: RemoteJob, state: RemoteStateStore) -> Puller:
        return Puller(
            job,
            state,
            spool=spool,
            open_server=open_server,
            send_reports=sender.send,
            metrics=mesh.metrics,
            clock=now,
        )

    scheduler = PullScheduler(
        lock=lambda key: lock_remote(directory, *key),
        store=mesh.bucket(streams.REMOTES),
        jobs=jobs,
        is_deleted=is_deleted,
        puller=puller,
        publish_alert=mesh.bus.alert,
        metrics=mesh.metrics,
        clock=now,
    )
    remotes.on_change(scheduler.changed)
    mesh.intake("remotes", scheduler)
    mesh.spawn("remotes", scheduler.run())
    return RemoteService(
        check=check,
        probe=partial(probe_remote, identify=identify, open_server=open_server),
        state_of=scheduler.state_of,
    )


SERVICE = Service(
    name=SERVICE_NAME,
    build=build,
    settings=FtpGatewaySettings,
    routes=ROUTES,
    streams=(
        streams.PUSH,
        streams.PROFILE_UPDATES,
        streams.FILES,
        streams.DLQ,
        streams.ALERTS,
    ),
    buckets=(
        streams.CONFIG,
        streams.PROFILES,
        streams.DEFENDER,
        streams.SUMMARIES,
        streams.REMOTES,
    ),
    consumers=(PROFILES_READER,),
    kinds=(APPS, FTP_USERS, HOST_KEYS, REMOTES),
)
