"""
Host keys of the server, and the algorithms that it agrees to.

Configuration: none. The keys lie sealed in `CONFIG` (`host_keys`).
Implementation: an Ed25519 and an RSA key, made at the first start of a mesh. The RSA key is for clients of Java and
    mainframes that know no other. Keys in a file, from an earlier version or from an operator who replaces a server,
    are imported once, and the file is removed.
Considerations: asyncssh's defaults still hold SHA-1 (in key exchange, MACs and `ssh-rsa` signatures). AES-GCM stands
    first, since it is the fastest, and Terrapin (CVE-2023-48795) does not affect it. NIST curves are left out of the
    key exchange: auditors refuse them, and clients that know no other curve know group 14.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import asyncssh
import structlog

from ftp_gateway.access.host_keys import (
    HOST_KEYS,
    OWNER,
    HostKey,
    HostKeys,
    first_generation,
)
from shared.config.registry import Registry
from shared.config.secret import Secret
from shared.errors import ConflictError, NotFoundError, UnavailableError

log = structlog.get_logger()

RSA_BITS = 3072
RSA_SIGNATURES = (b"rsa-sha2-512", b"rsa-sha2-256")
KEX = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
ENCRYPTION = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes128-ctr")
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
SIGNATURES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


async def ensure_host_keys(registry: Registry, file: Path, clock: Callable[[], datetime]) -> HostKeys:
    """
    Return the keys of the mesh, made when there are none. Of several replicas that start at once, one's keys are kept.

    Args:
        file: Key file of an earlier version.

    Raises:
        UnavailableError: NATS does not answer, or the file is damaged.
        InvalidError: The keys cannot be opened with the configured secret keys.
    """
    try:
        known = (await registry.get(HOST_KEYS, OWNER)).value
    except NotFoundError:
        made = await asyncio.to_thread(make_host_keys, file)
        try:
            known = (await registry.put(HOST_KEYS, OWNER, "", first_generation(made, clock()), expect_revision=0)).value
        except ConflictError:
            known = (await registry.get(HOST_KEYS, OWNER)).value
    await asyncio.to_thread(_remove_taken_over, file, known)
    return known


def make_host_keys(file: Path | None = None) -> tuple[HostKey, ...]:
    """Make a key of each type; keys in the file, if there is one, replace new ones of their types. Blocks."""
    keys = _read(file) if file is not None else []
    if not any(key.get_algorithm() == "ssh-ed25519" for key in keys):
        keys.insert(0, asyncssh.generate_private_key("ssh-ed25519", "millrace"))
    if not any(key.get_algorithm() == "ssh-rsa" for key in keys):
        keys.append(asyncssh.generate_private_key("ssh-rsa", "millrace", key_size=RSA_BITS))
    return tuple(HostKey(private=Secret(key.export_private_key().decode()), public=_public(key)) for key in keys)


def load_private_keys(known: HostKeys) -> list[asyncssh.SSHKey]:
    """Load every key, those in use first. Blocks."""
    return [
        asyncssh.import_private_key(key.private.reveal()) for generation in known.ordered for key in generation.keys
    ]


def restrict_rsa_to_sha2(options: asyncssh.SSHServerConnectionOptions, keys: Sequence[asyncssh.SSHKey]) -> None:
    """
    Remove SHA-1 signatures of RSA keys, and algorithms of another vendor, from what asyncssh offers.

    Each remaining algorithm gets a key pair of its own: a pair signs for all connections with what the last one chose.
    """
    rsa = next(key for key in keys if key.get_algorithm() == "ssh-rsa")
    for algorithm in list(options.server_host_keys):
        if algorithm in RSA_SIGNATURES:
            [options.server_host_keys[algorithm]] = asyncssh.load_keypairs([rsa])
        elif algorithm != b"ssh-ed25519":
            del options.server_host_keys[algorithm]


def _public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


def _read(file: Path) -> list[asyncssh.SSHKey]:
    try:
        return list(asyncssh.read_private_key_list(file))
    except FileNotFoundError:
        return []  # Also when another replica has just imported and removed it.
    except (asyncssh.KeyImportError, OSError):
        raise UnavailableError(f"{file} holds no private key that can be read") from None


def _remove_taken_over(file: Path, known: HostKeys) -> None:
    known_publics = {key.public for generation in known.generations for key in generation.keys}
    if known_publics.issuperset(map(_public, _read(file))):
        file.unlink(missing_ok=True)
    else:
        log.warning("host_key_file_ignored", path=str(file), message="the mesh has other keys already")
