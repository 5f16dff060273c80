"""
The composition root: opens the spool, the SFTP server and the consumers, and ties them together. No rules.
"""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ftp_gateway.accounts import Account, Passwords
from ftp_gateway.config import APPS, FTP_USERS, account_of, rules_of
from ftp_gateway.file_work import FileWork
from ftp_gateway.formats import Rules
from ftp_gateway.handlers import NAME, ProfileUpdates
from ftp_gateway.intake import Intake
from ftp_gateway.profile_updates import unknown_users
from ftp_gateway.protocols.sftp import open_sftp
from ftp_gateway.routes import ROUTES, State
from ftp_gateway.spool import Spool
from shared import subjects
from shared.consumers import open_pull
from shared.profiles import Profiles
from shared.service import Mesh, Service


def now() -> datetime:
    return datetime.now(UTC)


async def build(mesh: Mesh) -> State:
    """Open everything; the listener last, so that who signs in finds a service that works."""
    directory = Path(mesh.settings.data_dir) / "ftp"
    apps = mesh.registry.view(APPS)
    users = mesh.registry.view(FTP_USERS)

    def rules(app_key: str) -> Rules:
        entry = apps.get(app_key)
        return rules_of(entry.value) if entry else Rules()

    def find(app_key: str, name: str) -> Account | None:
        entry = users.get(app_key, name)
        return account_of(entry) if entry else None

    spool = Spool(directory / "spool", now)
    passwords = await mesh.enter(Passwords())
    profiles = Profiles(mesh.bus)
    file_work = await mesh.enter(FileWork(partial(unknown_users, profiles)))
    intake = Intake(
        spool=spool,
        bus=mesh.bus,
        rules_of=rules,
        file_work=file_work,
        metrics=mesh.metrics,
        clock=now,
    )
    mesh.spawn("files", intake.run())
    mesh.intake("files", intake)

    pull = await mesh.enter(
        open_pull(
            mesh.bus,
            subjects.PROFILE_UPDATES,
            durable=subjects.PROFILES_CONSUMER,
            subject=subjects.profile_update("*", "*"),
            capacity=64,
        )
    )
    updates = ProfileUpdates(mesh.bus, pull, profiles)
    mesh.spawn("profiles", updates.run())
    mesh.intake("profiles", updates)

    sftp = await mesh.enter(
        open_sftp(
            mesh.settings.sftp_host,
            mesh.settings.sftp_port,
            directory=directory,
            spool=spool,
            find=find,
            passwords=passwords,
            metrics=mesh.metrics,
            clock=now,
        )
    )
    mesh.intake("sftp", sftp)
    mesh.ping("sftp", sftp.ping)
    mesh.announce("sftp", sftp.address)
    return State(bus=mesh.bus, spool=spool, rules_of=rules, passwords=passwords)


SERVICE = Service(
    name=NAME,
    build=build,
    routes=ROUTES,
    streams=(subjects.PUSH, subjects.PROFILE_UPDATES, subjects.FILES, subjects.DLQ, subjects.ALERTS),
    buckets=(subjects.CONFIG, subjects.PROFILES),
    kinds=(APPS, FTP_USERS),
)
