"""
`millrace token`: create, list and revoke bearer tokens. `shared.config.tokens` stores and checks them.

Entries that the secret keys have not signed are no tokens; `millrace sign` shows and removes those.
"""

import argparse
from datetime import UTC, datetime

import msgspec

from millrace.mesh.access import ELECTION, ELECTION_S, add_data_argument, find_access, open_registry
from millrace.terminal.console import Console
from millrace.terminal.event_loop import run_async
from shared.config.registry import ConfigEntry, Registry
from shared.config.tokens import SHOWN, TOKENS, Token, new_token, token_hash
from shared.contracts.subjects import NO_APP
from shared.errors import InvalidError, NotFoundError
from shared.runtime.retry import retry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="print a new token, once")
    create.add_argument(
        "--scope", action="append", required=True, help="admin, metrics, or app:<app key>; may be repeated"
    )
    create.add_argument("--name", default="", help="who uses it, for the list")
    list_all = actions.add_parser("list", help="show what tokens there are, by hash")
    revoke = actions.add_parser("revoke", help="make a token worthless")
    revoke.add_argument("hash", help="the beginning of its hash, as the list shows it")
    for action in (create, list_all, revoke):
        add_data_argument(action)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    async with open_registry(find_access(args.data)) as registry:
        if args.action == "create":
            print(await create(registry, tuple(args.scope), args.name, now=datetime.now(UTC)))
        elif args.action == "list":
            rows = [
                (
                    entry.app_key[:SHOWN],
                    ", ".join(entry.value.scopes),
                    entry.value.name,
                    f"{entry.value.created_at:%F %R}",
                )
                for entry in sorted(await registry.list(TOKENS), key=lambda entry: entry.value.created_at)
            ]
            Console().table(("hash", "scopes", "name", "created (UTC)"), rows)
        else:
            revoked = await revoke(registry, args.hash)
            print(f"revoked {revoked.app_key[:SHOWN]} ({', '.join(revoked.value.scopes)})")
    return 0


async def create(registry: Registry, scopes: tuple[str, ...], name: str, *, now: datetime) -> str:
    """Return a new token; only its hash is stored. Raises `InvalidError` for a scope that cannot be."""
    token = new_token()
    try:
        value = msgspec.convert({"scopes": scopes, "name": name, "created_at": now}, Token)
    except msgspec.ValidationError:
        raise InvalidError("expected admin, metrics or app:<app key>", field="--scope") from None
    for scope in scopes:
        _check_app_of(scope)
    # The key is new, so writing it twice does no harm.
    await retry(lambda: registry.put(TOKENS, token_hash(token), "", value), backoff=ELECTION, deadline_s=ELECTION_S)
    return token


def _check_app_of(scope: str) -> None:
    if scope == f"app:{NO_APP}":
        raise InvalidError(f"expected another app: {NO_APP!r} stands for no app", field="--scope")


async def revoke(registry: Registry, prefix: str) -> ConfigEntry[Token]:
    """
    Delete the one token whose hash begins so.

    Raises:
        NotFoundError: There is none.
        InvalidError: There are several.
    """
    found = [entry for entry in await registry.list(TOKENS) if prefix and entry.app_key.startswith(prefix.lower())]
    if not found:
        raise NotFoundError(f"no token's hash begins with {prefix!r}")
    if len(found) > 1:
        raise InvalidError(f"{len(found)} tokens begin so; give more of the hash", field="hash")
    await registry.delete(TOKENS, found[0].app_key)
    return found[0]
