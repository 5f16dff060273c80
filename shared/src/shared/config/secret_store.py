"""
Secrets encrypted at rest with `cryptography`'s `MultiFernet`.

In the KV bucket a field of type `Secret` is the string `fernet:<token>`. The newest key encrypts and every configured
key decrypts, so a key is changed by adding one in front and running `millrace rekey`. In an answer of HTTP the field is
`***`. Nothing is logged here, and nothing is cached on a disk.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from msgspec import Struct

from shared.config.secret import S, Secret, T, dec_hook, enc_hook_masked, merge_masked
from shared.contracts.messages import invalid_error
from shared.errors import InvalidError

SEALED = "fernet:"
"""Prefix of a secret at rest."""


def generate_key() -> str:
    """A new key for `MILLRACE_SECRET_KEYS`."""
    return Fernet.generate_key().decode()


class SecretStore:
    """
    Configuration to bytes at rest and back. The first key encrypts, all decrypt.

    Raises:
        InvalidError: There is no key, or one is malformed; the message tells its position and never the key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise InvalidError("expected at least one key", field="secret_keys")
        self._first, *_ = fernets = [_fernet(key, place) for place, key in enumerate(keys)]
        self._all = MultiFernet(fernets)

    def encode_sealed(self, value: Struct) -> bytes:
        """JSON for the bucket: every secret is encrypted."""

        def seal(secret: Any) -> str:
            if not isinstance(secret, Secret):
                raise NotImplementedError(type(secret))
            return SEALED + self._first.encrypt(secret.reveal().encode()).decode()

        return msgspec.json.encode(value, enc_hook=seal)

    def decode_sealed(self, raw: bytes, type_: type[T]) -> T:
        """
        The value of the type that `encode_sealed` made these bytes of.

        Raises:
            InvalidError: It does not fit the type, or a secret is not encrypted, or decrypts with none of the keys.
                Names the field, never its value.
        """

        def unseal(kind: type, value: Any) -> Any:
            if kind is not Secret:
                raise NotImplementedError(kind)
            if not isinstance(value, str) or not value.startswith(SEALED):
                raise ValueError("Expected an encrypted secret")
            try:
                return Secret(self._all.decrypt(value.removeprefix(SEALED)).decode())
            except InvalidToken:
                raise ValueError("The secret cannot be decrypted with any of the configured keys") from None

        return _decoded(lambda: msgspec.json.decode(raw, type=type_, dec_hook=unseal))

    def rekey(self, raw: bytes) -> bytes | None:
        """
        The same JSON with every secret encrypted with the first key; None when they all are already.

        Knows no type: a secret is a string that begins with `fernet:`, wherever it stands.

        Raises:
            InvalidError: One decrypts with none of the keys; names its path.
        """
        changed = False

        def walk(value: Any, path: str) -> Any:
            nonlocal changed
            if isinstance(value, dict):
                return {key: walk(item, f"{path}.{key}" if path else key) for key, item in value.items()}
            if isinstance(value, list):
                return [walk(item, f"{path}[{place}]") for place, item in enumerate(value)]
            if not isinstance(value, str) or not value.startswith(SEALED):
                return value
            token = value.removeprefix(SEALED)
            if _opens(self._first, token):
                return value
            changed = True
            try:
                return SEALED + self._all.rotate(token).decode()
            except InvalidToken:
                message = "The secret cannot be decrypted with any of the configured keys"
                raise InvalidError(message, field=path) from None

        rekeyed = walk(_decoded(lambda: msgspec.json.decode(raw)), "")
        return msgspec.json.encode(rekeyed) if changed else None

    def from_form(self, new: dict[str, Any], type_: type[S], old: S | None) -> S:
        """
        The body of a `PUT` as a value of the type; the secrets that it leaves out or masks are the old value's.

        Raises:
            InvalidError: It does not fit the type; names the field.
        """
        return _decoded(lambda: msgspec.convert(merge_masked(new, old), type_, dec_hook=dec_hook))

    @staticmethod
    def encode_masked(value: Struct) -> bytes:
        """JSON for a reader of the configuration: every secret is `***`."""
        return msgspec.json.encode(value, enc_hook=enc_hook_masked)

    @staticmethod
    def changed_fields(old: Struct | None, new: Struct) -> tuple[str, ...]:
        """
        Names of the fields whose values differ, secrets compared by what they hold; all of them without an old value.

        The bytes at rest cannot be compared: the same secret encrypts to other bytes each time.
        """
        fields = zip(new.__struct_fields__, new.__struct_encode_fields__, strict=True)
        if type(old) is not type(new):
            return tuple(field for _, field in fields)
        return tuple(field for attribute, field in fields if getattr(old, attribute) != getattr(new, attribute))


def _fernet(key: str, place: int) -> Fernet:
    try:
        return Fernet(key)
    except ValueError:
        message = "expected a Fernet key: 32 bytes in URL-safe Base64, as `millrace` makes them"
        raise InvalidError(message, field=f"secret_keys[{place}]") from None


def _opens(fernet: Fernet, token: str) -> bool:
    try:
        fernet.decrypt(token)
    except InvalidToken:
        return False
    return True


def _decoded(decode: Callable[[], T]) -> T:
    try:
        return decode()
    except msgspec.ValidationError as error:
        raise invalid_error(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"expected JSON: {error}") from None
