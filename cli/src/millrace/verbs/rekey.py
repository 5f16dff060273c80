"""
`millrace rekey`: after a key was added in front of the secret keys, encrypt every stored secret with it.

`shared.config.secret_store` encrypts. The bucket keeps a few earlier revisions of each entry, so
an old key that has leaked also means new secrets, not only a new key.
"""

import argparse
import sys

from msgspec import Struct

from millrace.mesh.access import add_data_argument, find_access, open_registry
from millrace.terminal.event_loop import run_async
from shared.config.registry import Registry
from shared.contracts import streams
from shared.errors import ConflictError, InvalidError
from shared.messaging.kv import KeyValue, KeyValueStore


class RekeyResult(Struct, frozen=True, kw_only=True):
    """Counts of entries. `refused` names each entry that no key opens, and the field of its secret."""

    changed: int
    current: int
    refused: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace rekey`."""
    add_data_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Encrypt anew, and exit with 1 when a secret could not be opened."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    async with open_registry(find_access(args.data)) as registry:
        outcome = await rekey(registry)
    for refusal in outcome.refused:
        print(f"millrace: {refusal}", file=sys.stderr)
    print(f"{outcome.changed} entries encrypted anew, {outcome.current} needed nothing, {len(outcome.refused)} refused")
    return 1 if outcome.refused else 0


async def rekey(registry: Registry) -> RekeyResult:
    """Encrypt every entry of `CONFIG` anew. One that changes meanwhile is read again, so no writer's work is lost."""
    store = KeyValueStore(registry.bus, streams.CONFIG)
    changed = current = 0
    refused: list[str] = []
    for stored in await store.scan():
        try:
            if await _rekey(registry, store, stored):
                changed += 1
            else:
                current += 1
        except InvalidError as error:
            refused.append(f"{stored.key}: {error.field}: {error}")
    return RekeyResult(changed=changed, current=current, refused=tuple(refused))


async def _rekey(registry: Registry, store: KeyValueStore, stored: KeyValue | None) -> bool:
    while stored is not None:
        encrypted = registry.secrets.rekey(stored.data)
        if encrypted is None:
            return False
        try:
            await store.put(stored.key, encrypted, expect_revision=stored.revision)
        except ConflictError:
            stored = await store.get(stored.key)
        else:
            return True
    return False
