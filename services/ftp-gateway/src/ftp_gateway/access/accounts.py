"""
Accounts that may sign in, and the checks of their passwords (argon2id), public keys and networks. Knows no protocol.

The login name is `<app>.<user>`. An app's key and a user's name hold no dot, so no two apps can have the same login.
"""

import asyncio
import base64
import binascii
import os
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from time import perf_counter
from types import TracebackType

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from ftp_gateway.access.quotas import Quotas
from shared.client_addresses import Network, is_within, parse_network
from shared.contracts.subjects import APP_KEY, NAME
from shared.errors import InvalidError

HASHING_AT_ONCE = min(2, os.cpu_count() or 1)
"""Hashing is slow on purpose. Without a bound, wrong passwords would be a way to stop every login."""
MIN_RSA_BITS = 2048
KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


class Account(Struct, frozen=True, kw_only=True):
    """
    A user that may sign in, until `expires_at`.

    `networks` empty allows every address. `keys` are SSH wire blobs.
    """

    app_key: str
    name: str
    password_hash: str | None = None
    keys: frozenset[bytes] = frozenset()
    networks: tuple[Network, ...] = ()
    expires_at: datetime | None = None
    quotas: Quotas = Quotas()

    @property
    def login(self) -> str:
        return login_name(self.app_key, self.name)

    def allows_address(self, address: str) -> bool:
        """Return whether a client at this address may try to sign in."""
        return not self.networks or is_within(address, self.networks)

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


def login_name(app_key: str, name: str) -> str:
    """Return the name that a client signs in with."""
    return f"{app_key}.{name}"


def split_login(login: str) -> tuple[str, str] | None:
    """Split a login name into app key and user name; None for text that can be no login name."""
    app_key, dot, name = login.partition(".")
    return (app_key, name) if dot and APP_KEY.fullmatch(app_key) and NAME.fullmatch(name) else None


FindAccount = Callable[[str, str], Account | None]
"""Returns an enabled user by app key and name, as the configuration is now."""


class Passwords:
    """
    Hashes and checks of passwords, in threads of their own. An async context manager.

    The parameters are OWASP's for argon2id (19 MiB, 2 rounds, 1 lane): about 20 ms of one core.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._pool = ThreadPoolExecutor(HASHING_AT_ONCE, thread_name_prefix="passwords")
        # A user that does not exist costs the same time as one that does.
        began = perf_counter()
        self._dummy_hash = self._hasher.hash(os.urandom(16).hex())
        self._verify_s = perf_counter() - began

    async def __aenter__(self) -> "Passwords":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the string that is stored: algorithm, parameters, salt and hash."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._hasher.hash, _normalized(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Check a password. Without a stored hash the answer is no, after the same work."""
        loop = asyncio.get_running_loop()
        matches = await loop.run_in_executor(
            self._pool, self._matches, stored or self._dummy_hash, _normalized(password)
        )
        return matches and stored is not None

    async def delay_refusal(self) -> None:
        """Wait as long as a check takes, without its work, for a client that is refused before any password matters."""
        await asyncio.sleep(self._verify_s)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def _normalized(password: str) -> str:
    # SSH clients send NFKC (RFC 4013); a browser sends what was typed.
    return unicodedata.normalize("NFKC", password)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse addresses and CIDR ranges. Raises `InvalidError` naming the entry of `allowed_ips`."""
    networks: list[Network] = []
    for index, text in enumerate(texts):
        try:
            networks.append(parse_network(text))
        except ValueError:
            raise InvalidError(
                "expected an address or a range such as 203.0.113.0/24", field=f"allowed_ips[{index}]"
            ) from None
    return tuple(networks)


def parse_keys(lines: Sequence[str]) -> frozenset[bytes]:
    """
    Parse lines of an `authorized_keys` file, without options. Raises `InvalidError` naming the entry of `public_keys`.
    """
    return frozenset(_key(line, f"public_keys[{index}]") for index, line in enumerate(lines))


def _key(line: str, field: str) -> bytes:
    words = line.split()
    if len(words) < 2 or words[0] not in KEY_TYPES:
        raise InvalidError(f"expected '<type> <base64> [comment]' with a type of {', '.join(KEY_TYPES)}", field=field)
    try:
        blob = base64.b64decode(words[1], validate=True)
        parts = _strings(blob)
    except (binascii.Error, ValueError):
        raise InvalidError("the key is damaged: it does not decode", field=field) from None
    if not parts or parts[0] != words[0].encode():
        raise InvalidError(f"the key is no {words[0]}", field=field)
    if words[0] == "ssh-rsa" and (len(parts) != 3 or int.from_bytes(parts[2]).bit_length() < MIN_RSA_BITS):
        raise InvalidError(f"expected an RSA key of at least {MIN_RSA_BITS} bits", field=field)
    return blob


def _strings(blob: bytes) -> list[bytes]:
    """Return the length-prefixed strings of an SSH key blob (RFC 4253, 6.6)."""
    parts, at = [], 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4])
        part = blob[at + 4 : at + 4 + size]
        if len(blob[at : at + 4]) < 4 or len(part) < size:
            raise ValueError("cut off")
        parts.append(part)
        at += 4 + size
    return parts
