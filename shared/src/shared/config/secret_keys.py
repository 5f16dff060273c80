"""
Keys that protect the configuration at rest: the first encrypts and signs, every one decrypts and verifies.

An operator adds a new key in front of the others. Where the keys come from a file, it is read again when it has
changed: before each write, and when something needs a key that is not known. So a service needs no restart for a key.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from os import stat_result
from pathlib import Path
from typing import NamedTuple

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from shared.errors import ConflictError, InvalidError
from shared.runtime.logs import redactor

log = structlog.get_logger()

SIGNING = b"millrace CONFIG signature 1"
KEY_ID = b"millrace CONFIG key id 1"
"""Labels from which the keys for signatures, and the names of keys, are derived (RFC 5869)."""


class UnsignedError(ConflictError):
    """A stored entry has no signature of the secret keys, so nothing of it is used. `reason` is the cause alone."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class SecretKey(NamedTuple):
    """One key: it encrypts as `fernet`, it signs as `signing`, and signatures name it by `id`."""

    id: str
    fernet: Fernet
    signing: bytes


def generate_key() -> str:
    """A new key for `MILLRACE_SECRET_KEYS`."""
    return Fernet.generate_key().decode()


def split_keys(text: str) -> list[str]:
    """The keys of a setting or a file, which are separated by commas."""
    return [key.strip() for key in text.split(",") if key.strip()]


class SecretKeys:
    """
    The keys, and what is done with them.

    Args:
        keys: At least one; the first encrypts and signs.
        file: The file that they are from; None where they are from no file.

    Raises:
        InvalidError: There is no key, or one is malformed; the message tells its position and never the key.
    """

    def __init__(self, keys: Sequence[str], file: Path | None = None) -> None:
        self._source = str(file) if file is not None else "secret_keys"
        self._file = file
        self._seen: tuple[int, ...] | None = None
        self._use(keys)

    def _use(self, keys: Sequence[str]) -> None:
        if not keys:
            raise InvalidError("expected at least one key", field=self._source)
        made = [_secret_key(key, f"{self._source}[{place}]") for place, key in enumerate(keys)]
        self._texts = tuple(keys)
        self._first = made[0]
        self._by_id = {key.id: key for key in made}
        self._all = MultiFernet([key.fernet for key in made])

    def refresh(self) -> bool:
        """
        Take the keys that are in the file now, where it has changed. A file without good keys changes nothing.

        Returns:
            Whether there are other keys than before.
        """
        if self._file is None:
            return False
        try:
            seen = _identity(self._file.stat())
            if seen == self._seen:
                return False
            self._seen = seen
            keys = split_keys(self._file.read_text())
            if tuple(keys) == self._texts:
                return False
            for key in keys:
                redactor.add(key)
            self._use(keys)
        except (OSError, UnicodeDecodeError) as error:
            log.error("secret_keys_refused", file=str(self._file), message=type(error).__name__)
            return False
        except InvalidError as error:
            log.error("secret_keys_refused", file=error.field, message=error.message)
            return False
        log.info("secret_keys_changed", file=str(self._file), keys=len(keys))
        return True

    def encrypt(self, secret: str) -> str:
        """The secret as a Fernet token of the first key."""
        return self._first.fernet.encrypt(secret.encode()).decode()

    def decrypt(self, token: str) -> str:
        """The secret in a token. Raises `InvalidToken` where none of the keys fits."""
        try:
            return self._all.decrypt(token).decode()
        except InvalidToken:
            if not self.refresh():
                raise
            return self._all.decrypt(token).decode()

    def is_encrypted_with_first(self, token: str) -> bool:
        """Return whether the first key decrypts the token."""
        try:
            self._first.fernet.decrypt(token)
        except InvalidToken:
            return False
        return True

    def sign(self, key: str, data: bytes) -> str:
        """The signature of an entry: `<id of the first secret key>.<HMAC-SHA256 in hexadecimal>`."""
        return f"{self._first.id}.{_mac(self._first, key, data)}"

    def is_signed_with_first(self, signature: str) -> bool:
        """Return whether a signature names the first key."""
        return signature.partition(".")[0] == self._first.id

    def verify(self, key: str, data: bytes, signature: str | None) -> None:
        """Check a signature. Raises `UnsignedError`, which says what is wrong with it."""
        if not signature:
            raise UnsignedError("it has no signature")
        id, _, mac = signature.partition(".")
        if id not in self._by_id:
            self.refresh()
        signer = self._by_id.get(id)
        if signer is None:
            raise UnsignedError("it is signed with a key that is not among the secret keys")
        if not hmac.compare_digest(mac.encode(), _mac(signer, key, data).encode()):
            raise UnsignedError("its signature is not of this content")


def _mac(signer: SecretKey, key: str, data: bytes) -> str:
    # A key of a bucket holds no zero byte, so no two entries come to the same text.
    return hmac.digest(signer.signing, key.encode() + b"\0" + data, hashlib.sha256).hex()


def _secret_key(key: str, field: str) -> SecretKey:
    try:
        fernet = Fernet(key)
    except ValueError:
        message = "expected a Fernet key: 32 bytes in URL-safe Base64, as `millrace` makes them"
        raise InvalidError(message, field=field) from None

    def derived(label: bytes, length: int) -> bytes:
        return HKDFExpand(algorithm=SHA256(), length=length, info=label).derive(base64.urlsafe_b64decode(key))

    return SecretKey(id=derived(KEY_ID, 8).hex(), fernet=fernet, signing=derived(SIGNING, 32))


def _identity(found: stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_size, found.st_ino
