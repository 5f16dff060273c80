"""
Bearer tokens: making, hashing and checking. Only hashes are kept, and only those that the mesh's secret keys have
signed count. The scope that a route needs stands in its `Route`.
"""

import hashlib
import re
import secrets
from datetime import datetime
from typing import Annotated, Final

import structlog
from msgspec import Meta, Struct

from shared.config.registry import Kind, Registry
from shared.config.secret_keys import UnsignedError
from shared.errors import DeniedError, NotFoundError, UnauthenticatedError

log = structlog.get_logger()

SHAPE = re.compile(r"mr_[A-Za-z0-9_-]{43}")
ADMIN = "admin"
METRICS = "metrics"
"""Reads `/metrics` with the names of tenants, and nothing else."""
SHOWN = 12
"""Characters of a hash that are shown: enough to tell tokens apart and to revoke by."""

Scope = Annotated[str, Meta(pattern=r"^(admin|metrics|app:[A-Za-z0-9_-]{1,64})$")]


class Token(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token's record. The token itself is shown once, to its maker."""

    scopes: tuple[Scope, ...]
    name: str = ""
    created_at: datetime


TOKENS: Kind[Token] = Kind(prefix="tokens", type=Token, fixed_id="")
"""`tokens.<first 64 characters of the hash>`: the hash stands where other kinds have the app."""


UNKNOWN: Final = "this token was never issued, or was revoked"


def new_token() -> str:
    """256 random bits, recognisable by secret scanners."""
    return f"mr_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """SHA-256 in hexadecimal. No salt or stretching is needed: a token is random and long."""
    return hashlib.sha256(token.encode()).hexdigest()


async def authenticate(registry: Registry, header: str | None) -> Token:
    """
    The token of an `Authorization` header.

    Raises:
        UnauthenticatedError: There is none, or it was never issued.
    """
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not SHAPE.fullmatch(token.strip()):
        raise UnauthenticatedError("expected 'Authorization: Bearer <token>'")
    hashed = token_hash(token.strip())
    view = registry.view(TOKENS)
    if known := view.get(hashed):
        return known.value
    if view.is_erased(hashed):
        raise UnauthenticatedError(UNKNOWN)
    # The watch may be a moment behind a token that was just made.
    try:
        return (await registry.get(TOKENS, hashed)).value
    except NotFoundError:
        raise UnauthenticatedError(UNKNOWN) from None
    except UnsignedError as error:
        registry.bus.metrics.count("millrace_config_refused_total", kind=TOKENS.prefix)
        log.warning("token_refused", hash=hashed[:SHOWN], message=error.message)
        raise UnauthenticatedError("this token's entry has no signature of this mesh; ask its operator") from None


def authorise(token: Token, app_key: str | None) -> None:
    """Check a token's scope. Raises `DeniedError` unless it is for `app_key` (None: operators) or an operator's."""
    if ADMIN in token.scopes:
        return
    if app_key is None or f"app:{app_key}" not in token.scopes:
        raise DeniedError("this token is not for this app" if app_key else "this needs an operator's token")


def authorise_metrics(token: Token) -> None:
    """Check that a token may see the metrics of every tenant. Raises `DeniedError`."""
    if ADMIN not in token.scopes and METRICS not in token.scopes:
        raise DeniedError("this needs a token of scope metrics or admin")
