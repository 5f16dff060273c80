"""
Entries of `CONFIG` that the secret keys have not signed: those of a release before, or of somebody who forged them.
"""

from pathlib import Path

from msgspec import Struct

from shared.config.registry import Registry
from shared.config.secret_keys import UnsignedError
from shared.config.tokens import SHOWN, TOKENS
from shared.errors import ConflictError, InvalidError
from shared.messaging.kv import KeyValue

TOKEN = f"{TOKENS.prefix}."


class UnsignedEntry(Struct, frozen=True):
    """An entry that no service uses, and why."""

    stored: KeyValue
    reason: str

    @property
    def is_token(self) -> bool:
        return self.stored.key.startswith(TOKEN)

    @property
    def name(self) -> str:
        """Its key, by which it is signed; of a token's hash the beginning."""
        return self.stored.key[: len(TOKEN) + SHOWN] if self.is_token else self.stored.key


async def find_unsigned(registry: Registry) -> list[UnsignedEntry]:
    """Every entry that the secret keys have not signed, the tokens last."""
    found = []
    for stored in await registry.entries.scan():
        try:
            registry.entries.verify(stored)
        except UnsignedError as error:
            found.append(UnsignedEntry(stored, error.reason))
    return sorted(found, key=lambda entry: (entry.is_token, entry.stored.key))


async def check_keys(registry: Registry, file: Path) -> None:
    """
    Check that the secret keys in this file are those of the configuration.

    Raises:
        InvalidError: They have signed none of its entries; names the file.
    """
    entries, unsigned = await registry.entries.scan(), await find_unsigned(registry)
    if entries and len(unsigned) == len(entries):
        message = (
            f"expected the keys that signed the configuration; they have signed none of its {len(entries)} entries"
        )
        raise InvalidError(message, field=str(file))


async def sign_entry(registry: Registry, stored: KeyValue) -> None:
    """Sign an entry as it was shown. Raises `ConflictError` where it has changed since."""
    try:
        await registry.entries.put(stored.key, stored.data, expect_revision=stored.revision)
    except ConflictError:
        raise ConflictError(f"{stored.key} has changed since it was read; look at it again") from None
