"""Routes of apps and of their SFTP users: the configuration kinds `apps` and `ftp_users`."""

from msgspec import Struct

from ftp_gateway.config import (
    APPS,
    FTP_USERS,
    MAX_PASSWORD_CHARS,
    MIN_PASSWORD_CHARS,
    App,
    FtpUser,
    check_app,
    check_user,
    with_password,
)
from ftp_gateway.remotes.remote import REMOTES
from ftp_gateway.state import State
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.http.resources import Remains, resource_routes
from shared.http.routes import Route
from shared.http.server import Call


async def _checked_app(call: Call[State], app: App, old: App | None) -> App:
    check_app(app)
    if app.summary is not None and not call.state.mailer.configured:
        raise InvalidError("this mesh has no mail server (MILLRACE_SMTP_HOST)", field="summary")
    return app


async def _checked_user(call: Call[State], user: FtpUser, old: FtpUser | None) -> FtpUser:
    check_user(user)
    kept = old.password if old else None
    if user.password is None or user.password == kept:
        return user
    password = user.password.reveal()
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise InvalidError(f"expected {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters", field="password")
    # The same password again is no change, so that a file of configuration can be applied twice.
    if kept is not None and await call.state.passwords.verify(password, kept.reveal()):
        return with_password(user, kept)
    return with_password(user, Secret(await call.state.passwords.hash(password)))


class AppRemains(Struct, frozen=True, kw_only=True):
    """
    Rest of an app whose rules for files are deleted. `ftp_users` and `remotes` are the ids of those that work on;
    `elsewhere` says how to see and delete them, and what other services have of the app.
    """

    ftp_users: tuple[str, ...]
    remotes: tuple[str, ...]
    elsewhere: str


async def _find_remains(call: Call[State]) -> AppRemains:
    app_key = call.app_key
    return AppRemains(
        ftp_users=tuple(sorted(entry.id for entry in await call.registry.list(FTP_USERS, app_key))),
        remotes=tuple(sorted(entry.id for entry in await call.registry.list(REMOTES, app_key))),
        elsewhere=(
            f"`millrace app show {app_key}` lists what the app has in all services, and `millrace app delete {app_key} "
            "--yes` deletes it"
        ),
    )


ROUTES: tuple[Route, ...] = (
    *resource_routes(
        APPS,
        "/v1/apps/{app_key}",
        "the app's rules for files",
        check=_checked_app,
        remains=Remains(AppRemains, _find_remains),
    ),
    *resource_routes(FTP_USERS, "/v1/apps/{app_key}/ftp-users", "an SFTP user", check=_checked_user),
)
