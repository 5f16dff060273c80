"""
Keys in the configuration of an SFTP remote: the accepted host key, and the private key that signs in.

The private key is read with a limit on the work that its passphrase costs, because the key itself names that work.
"""

import base64
import struct
from contextlib import suppress
from functools import lru_cache

import asyncssh

from ftp_gateway.remotes.remote import Remote
from shared.config.secret import Secret
from shared.errors import InvalidError

MAGIC = b"openssh-key-v1\0"
MAX_ROUNDS = 128
"""Rounds of bcrypt; `ssh-keygen` makes keys with 16 or 24, asyncssh with 128."""


def check_keys(remote: Remote) -> None:
    """
    Check the host key, the private key and its passphrase. Blocks, for about a second where there is a passphrase.

    Raises:
        InvalidError: A key is none, or the passphrase does not open it.
    """
    accepted_key(remote)
    if remote.private_key:
        client_key(remote.private_key, remote.passphrase)


def accepted_key(remote: Remote) -> asyncssh.SSHKey | None:
    """Return the accepted host key; None where there is none yet. Raises `InvalidError` for a text that is no key."""
    if remote.host_key is None:
        return None
    try:
        return asyncssh.import_public_key(remote.host_key)
    except (asyncssh.KeyImportError, ValueError):
        raise InvalidError("expected '<type> <base64>', as a line of known_hosts ends", field="host_key") from None


@lru_cache(maxsize=256)
def client_key(private_key: Secret, passphrase: Secret | None) -> asyncssh.SSHKey:
    """Import a private key. Cached, because a passphrase takes a second of work; blocks that long."""
    text = private_key.reveal()
    if passphrase:
        _check_rounds(text)
    try:
        return asyncssh.import_private_key(text, passphrase.reveal() if passphrase else None)
    except asyncssh.KeyEncryptionError:
        raise InvalidError("does not open the private key", field="passphrase") from None
    except (asyncssh.KeyImportError, ValueError):
        message = "expected a private key of OpenSSH or PEM, and its passphrase if it has one"
        raise InvalidError(message, field="private_key") from None


def _check_rounds(text: str) -> None:
    """
    Refuse a key with more than `MAX_ROUNDS` (OpenSSH, PROTOCOL.key) with `InvalidError`. The key itself names the
    rounds, and could ask for a year of work.
    """
    lines = text.strip().splitlines()
    with suppress(ValueError, struct.error):
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
        at, strings = len(MAGIC), []
        for _ in range(3):
            (size,) = struct.unpack_from(">I", blob, at)
            strings.append(blob[at + 4 : at + 4 + size])
            at += 4 + size
        if blob.startswith(MAGIC) and strings[1] == b"bcrypt" and 0 < int.from_bytes(strings[2][-4:]) <= MAX_ROUNDS:
            return
    message = f"expected OpenSSH's format, with at most {MAX_ROUNDS} rounds, for a key that has a passphrase"
    raise InvalidError(message, field="private_key")
