"""
`millrace rekey`: after a key was added in front of the secret keys, encrypt and sign everything with it.

Nothing that an old key opens is left in the bucket, which has one revision of an entry. So an old key can be removed
afterwards. What it has leaked before is known; that takes new secrets, not only a new key.
"""

import argparse
import sys

from msgspec import Struct

from millrace.mesh.access import add_data_argument, find_access, open_registry
from millrace.terminal.event_loop import run_async
from shared.config.registry import Registry
from shared.config.secret_keys import UnsignedError
from shared.errors import ConflictError, InvalidError
from shared.messaging.kv import KeyValue

RESTARTS = """\
Services that read the keys from a file (MILLRACE_SECRET_KEYS_FILE, as `millrace up` does) take the new key as soon as
they see it there, without a restart. Remove the old key from the file when it shows the new one to all of them.
Services that have the keys in MILLRACE_SECRET_KEYS need restarts: before this command with the new key behind the old
one, then with the new key in front, and after this command without the old one."""


class RekeyResult(Struct, frozen=True, kw_only=True):
    """
    Counts of entries. `refused` names each entry that is not signed, or that has a secret that no key decrypts, and
    why.
    """

    changed: int
    current: int
    refused: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace rekey`."""
    add_data_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Encrypt and sign anew, and exit with 1 when something was refused."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    async with open_registry(find_access(args.data)) as registry:
        outcome = await rekey(registry)
    for refusal in outcome.refused:
        print(f"millrace: {refusal}", file=sys.stderr)
    print(
        f"{outcome.changed} entries encrypted and signed anew, {outcome.current} needed nothing,"
        f" {len(outcome.refused)} refused"
    )
    if outcome.refused:
        return 1
    print(RESTARTS)
    return 0


async def rekey(registry: Registry) -> RekeyResult:
    """Encrypt and sign every entry of `CONFIG` anew. One that changes meanwhile is read again: no write is lost."""
    changed = current = 0
    refused: list[str] = []
    for stored in await registry.entries.scan():
        try:
            lost, was_changed = await _rekey(registry, stored)
        except (InvalidError, UnsignedError) as error:
            refused.append(error.message if isinstance(error, UnsignedError) else f"{stored.key}: {error.message}")
            continue
        refused += [f"{stored.key}: {path}: no key decrypts this secret" for path in lost]
        changed += was_changed
        current += not was_changed and not lost
    return RekeyResult(changed=changed, current=current, refused=tuple(refused))


async def _rekey(registry: Registry, stored: KeyValue | None) -> tuple[tuple[str, ...], bool]:
    while stored is not None:
        entry = registry.entries.verify(stored)
        encrypted, lost = registry.secrets.rekey(entry.data)
        if encrypted == entry.data and registry.entries.is_signed_with_first(entry):
            return lost, False
        try:
            await registry.entries.put(stored.key, encrypted, expect_revision=stored.revision)
        except ConflictError:
            stored = await registry.entries.get(stored.key)
        else:
            return lost, True
    return (), False
