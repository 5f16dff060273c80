"""
`millrace sign`: show the entries of `CONFIG` that the secret keys have not signed, and sign or delete those that are
named.

A release before signed nothing, so its entries are signed once, after somebody has looked at them. Tokens are named
one by one, since a forged one opens every door. Whoever else could write into the bucket has left what this shows.
"""

import argparse
from collections.abc import Iterable

from millrace.mesh.access import add_data_argument, find_access, open_registry
from millrace.mesh.unsigned import TOKEN, UnsignedEntry, find_unsigned, sign_entry
from millrace.terminal.console import Console
from millrace.terminal.event_loop import run_async
from shared.config.registry import Registry
from shared.errors import InvalidError, NotFoundError

SHOWN_VALUE = 160
"""Characters of a value in the list."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace sign`."""
    parser.add_argument("entry", nargs="*", help="sign this entry, by its name in the list")
    parser.add_argument("--configuration", action="store_true", help="sign all of the list but the tokens")
    parser.add_argument("--delete", action="append", default=[], metavar="ENTRY", help="erase this entry instead")
    add_data_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Show, sign and delete. Exit with 1 while unsigned entries are left."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    console = Console()
    async with open_registry(find_access(args.data)) as registry:
        found = await find_unsigned(registry)
        wanted = choose(found, args.entry, args.configuration)
        unwanted = choose(found, args.delete, False)
        for entry in unwanted:
            await registry.entries.delete(entry.stored.key, expect_revision=entry.stored.revision)
            console.print_line(f"deleted {entry.name}")
        for entry in wanted:
            if entry not in unwanted:
                await sign_entry(registry, entry.stored)
                console.print_line(f"signed {entry.name}")
        left = [entry for entry in found if entry not in (*wanted, *unwanted)]
        if left:
            console.table(("entry", "why it is not used", "value"), [_row(registry, entry) for entry in left])
        else:
            console.print_line("every entry is signed")
    return 1 if left else 0


def _row(registry: Registry, entry: UnsignedEntry) -> tuple[str, str, str]:
    try:
        value = registry.secrets.mask_sealed(entry.stored.data)
    except InvalidError as error:
        value = error.message
    return entry.name, entry.reason, value if len(value) <= SHOWN_VALUE else f"{value[:SHOWN_VALUE]}…"


def choose(found: Iterable[UnsignedEntry], names: Iterable[str], configuration: bool) -> list[UnsignedEntry]:
    """
    The entries of these names, and with `configuration` all that are no token.

    Raises:
        NotFoundError: No unsigned entry has one of the names.
        InvalidError: Several do.
    """
    found = list(found)
    chosen = [entry for entry in found if configuration and not entry.is_token]
    for name in names:
        matching = [entry for entry in found if _is_named(entry, name)]
        if not matching:
            raise NotFoundError(f"there is no unsigned entry {name!r}; `millrace sign` lists them")
        if len(matching) > 1:
            raise InvalidError(f"{len(matching)} entries begin with {name!r}; give more of the hash", field="entry")
        chosen += [entry for entry in matching if entry not in chosen]
    return chosen


def _is_named(entry: UnsignedEntry, name: str) -> bool:
    is_beginning = entry.is_token and len(name) > len(TOKEN) and entry.stored.key.startswith(name)
    return is_beginning or entry.stored.key == name
