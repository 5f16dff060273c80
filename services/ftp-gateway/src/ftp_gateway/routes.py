"""
What the service answers over HTTP: apps, their SFTP users, and what became of their files. Parse, call, answer.
"""

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct

from ftp_gateway.accounts import Passwords
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
from ftp_gateway.formats import Rules
from ftp_gateway.history import FileEntry, recent_files
from ftp_gateway.spool import Spool
from shared.bus import Bus
from shared.errors import InvalidError
from shared.http import Call
from shared.resources import resource_routes
from shared.routes import Query, Route
from shared.secret_store import Secret

MAX_FILES = 500


class State(Struct, frozen=True, kw_only=True):
    """What the routes work on."""

    bus: Bus
    spool: Spool
    rules_of: Callable[[str], Rules]
    passwords: Passwords


class Files(Struct, frozen=True, kw_only=True):
    """Files of the app, newest first."""

    files: tuple[FileEntry, ...]


async def list_files(call: Call[State]) -> Files:
    """Those that are here and those that are done."""
    state = call.state
    found = await recent_files(state.bus, state.spool, state.rules_of(call.app_key), call.app_key, call.asked["most"])
    return Files(files=tuple(found))


async def _checked_app(call: Call[State], app: App, old: App | None) -> App:
    check_app(app)
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
    Route(
        "GET",
        "/v1/apps/{app_key}/files",
        list_files,
        "List the app's files with their state and counts",
        reply=Files,
        query={"most": Query("How many", Annotated[int, Meta(ge=1, le=MAX_FILES)], 50)},
    ),
)
