"""
Configuration of apps and their SFTP users, and the settings of this service. No I/O.

This service alone writes and reads `apps.<app>` so far. Its rules are those by which the app's files are read.
"""

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct, structs

from ftp_gateway.access.accounts import Account, parse_keys, parse_networks
from ftp_gateway.access.quotas import Quotas
from ftp_gateway.model.rules import AttributeType, Completion, Fallback, FileRules
from ftp_gateway.parsing.profile_txt import MAX_ATTRIBUTE_NAME_CHARS, MAX_ATTRIBUTES
from ftp_gateway.summaries.rendering import Summary
from shared.config.registry import ConfigEntry, Kind
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.runtime.settings import Settings

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 256

AttributeName = Annotated[str, Meta(min_length=1, max_length=MAX_ATTRIBUTE_NAME_CHARS)]


class FtpGatewaySettings(Settings, frozen=True, kw_only=True):
    """Settings of ftp-gateway; those that it alone reads stand here."""

    sftp_host: str = "127.0.0.1"
    sftp_port: Annotated[int, Meta(ge=0, le=65535)] = 2022
    sftp_proxies: str = ""
    """Addresses and ranges, separated by commas, that must send a PROXY header; no other peer's is read."""
    sftp_connections: Annotated[int, Meta(ge=2)] = 1024
    """Connections at a time; those that have not signed in may be half of them."""
    sftp_connections_per_address: Annotated[int, Meta(ge=1)] = 20
    sftp_login_s: Annotated[float, Meta(gt=0)] = 20.0
    """Limit of signing in."""
    sftp_idle_s: Annotated[float, Meta(gt=0)] = 600.0
    """Limit of an idle session. Keep-alives and reads of attributes leave it idle."""
    sftp_ban_failures: Annotated[int, Meta(ge=1)] = 15
    """Wrong passwords and keys in half an hour after which an address is banned."""
    sftp_ban_s: Annotated[float, Meta(gt=0, le=86400)] = 900.0
    """Length of the first ban; each later one is twice as long, up to a day."""


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    An app, as far as its files are concerned.

    `profile_attributes` empty accepts any attribute. `settle_s` is how long a file that was uploaded under its final
    name must stay unchanged before it is processed. `fallback_encoding` is for files that are not UTF-8. `timezone` is
    that of dates without an offset. `unknown_users` says whether a profile file may make new profiles. `all_or_nothing`
    refuses a file whole of which any row is bad. Without a `summary` no e-mail is sent.
    """

    display_name: Annotated[str, Meta(max_length=200)] = ""
    timezone: Annotated[str, Meta(max_length=64)] = "UTC"
    profile_attributes: Annotated[dict[AttributeName, AttributeType], Meta(max_length=MAX_ATTRIBUTES)] = {}
    settle_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    completion: Completion = "settle"
    fallback_encoding: Fallback | None = None
    unknown_users: Literal["create", "reject"] = "create"
    all_or_nothing: bool = False
    summary: Summary | None = None


class FtpUser(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A user that may upload for an app, and signs in as `<app>.<name>`.

    `password` comes in clear and is stored as its argon2id hash. `public_keys` are lines of an `authorized_keys` file.
    `allowed_ips` are addresses and CIDR ranges; empty allows every address. Changes hold at once, also for open
    sessions.
    """

    password: Secret | None = None
    public_keys: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    allowed_ips: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    disabled: bool = False
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    limits: Quotas = Quotas()


APPS = Kind(prefix="apps", type=App, fixed_id="")
FTP_USERS = Kind(prefix="ftp_users", type=FtpUser)


def check_app(app: App) -> None:
    """Raises `InvalidError` for an unknown timezone."""
    try:
        ZoneInfo(app.timezone)
    except (ValueError, OSError, KeyError):
        raise InvalidError("expected an IANA timezone such as Europe/Istanbul", field="timezone") from None


def check_user(user: FtpUser) -> None:
    """Raises `InvalidError` for a damaged key, a wrong address, or a user without password and keys."""
    parse_keys(user.public_keys)
    parse_networks(user.allowed_ips)
    if not user.password and not user.public_keys:
        raise InvalidError("expected a password, public keys, or both", field="password")


def rules_of(app: App) -> FileRules:
    """Return the rules by which the app's files are read."""
    return FileRules(
        settle_s=app.settle_s,
        completion=app.completion,
        fallback_encoding=app.fallback_encoding,
        attributes=app.profile_attributes,
        timezone=app.timezone,
        unknown_users=app.unknown_users,
        all_or_nothing=app.all_or_nothing,
    )


def account_of(entry: ConfigEntry[FtpUser]) -> Account | None:
    """Return the account of a user; None while the user is disabled."""
    user = entry.value
    if user.disabled:
        return None
    return Account(
        app_key=entry.app_key,
        name=entry.id,
        password_hash=user.password.reveal() if user.password else None,
        keys=parse_keys(user.public_keys),
        networks=parse_networks(user.allowed_ips),
        expires_at=user.expires_at,
        quotas=user.limits,
    )


def with_password(user: FtpUser, stored: Secret) -> FtpUser:
    """Return the user with a stored hash in place of the clear password."""
    return structs.replace(user, password=stored)
