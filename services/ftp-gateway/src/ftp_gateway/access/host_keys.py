"""
Host keys of the SFTP server, sealed in `CONFIG`, so that every replica shows the same. No I/O.

A generation is one key of each type. One generation is in use. The others are announced beside it
(`hostkeys-00@openssh.com`), so that clients learn a new one before it is used, and forget one that was removed.
"""

import base64
import hashlib
from datetime import datetime

from msgspec import Struct, structs

from shared.config.registry import Kind
from shared.config.secret import Secret
from shared.errors import ConflictError, NotFoundError

OWNER = "ftp-gateway"
"""Stands for the app in the configuration key."""
MAX_GENERATIONS = 4


class HostKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key. `private` is in OpenSSH's format, `public` a line as in `known_hosts`: type and Base64."""

    private: Secret
    public: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint as OpenSSH shows it."""
        blob = base64.b64decode(self.public.split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class Generation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys that were made together, one of each type."""

    number: int
    made_at: datetime
    keys: tuple[HostKey, ...]


class HostKeys(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every generation, and the number of the one in use."""

    in_use: int
    generations: tuple[Generation, ...]

    @property
    def ordered(self) -> tuple[Generation, ...]:
        """The generations, the one in use first."""
        return tuple(sorted(self.generations, key=lambda generation: generation.number != self.in_use))


HOST_KEYS = Kind(prefix="host_keys", type=HostKeys, fixed_id="")


def first_generation(keys: tuple[HostKey, ...], now: datetime) -> HostKeys:
    """Return the keys of a new mesh."""
    return HostKeys(in_use=1, generations=(Generation(number=1, made_at=now, keys=keys),))


def check_generations(known: HostKeys) -> None:
    """Raises `ConflictError` when there are `MAX_GENERATIONS` already."""
    if len(known.generations) >= MAX_GENERATIONS:
        raise ConflictError(f"expected at most {MAX_GENERATIONS} generations; delete one that is not in use")


def with_new_generation(known: HostKeys, keys: tuple[HostKey, ...], now: datetime) -> HostKeys:
    """Return the keys with a new generation, announced and not used yet."""
    check_generations(known)
    number = max(generation.number for generation in known.generations) + 1
    return structs.replace(known, generations=(*known.generations, Generation(number=number, made_at=now, keys=keys)))


def with_generation_in_use(known: HostKeys, number: int) -> HostKeys:
    """Return the keys with another generation in use. Raises `NotFoundError`."""
    _find(known, number)
    return structs.replace(known, in_use=number)


def without_generation(known: HostKeys, number: int) -> HostKeys:
    """Return the keys without a generation. Raises `NotFoundError`, or `ConflictError` for the one in use."""
    found = _find(known, number)
    if number == known.in_use:
        raise ConflictError("this generation is in use")
    return structs.replace(known, generations=tuple(each for each in known.generations if each is not found))


def _find(known: HostKeys, number: int) -> Generation:
    found = next((generation for generation in known.generations if generation.number == number), None)
    if found is None:
        raise NotFoundError(f"there is no generation {number}")
    return found
