"""Routes of apps and of their SFTP users: the configuration kinds `apps` and `ftp_users`."""

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
from ftp_gateway.state import State
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.http.resources import resource_routes
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


ROUTES: tuple[Route, ...] = (
    *resource_routes(APPS, "/v1/apps/{app_key}", "an app", check=_checked_app),
    *resource_routes(FTP_USERS, "/v1/apps/{app_key}/ftp-users", "an SFTP user", check=_checked_user),
)
