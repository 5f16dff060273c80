"""
Secrets encrypted at rest with `cryptography`'s Fernet, by the keys of `shared.config.secret_keys`.

In the KV bucket a field of type `Secret` is the string `fernet:<token>`. The newest key encrypts and every configured
key decrypts, so a key is changed by adding one in front and running `millrace rekey`. In an answer of HTTP the field is
`***`. Nothing is logged here, and nothing is cached on a disk.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.fernet import InvalidToken
from msgspec import Struct

from shared.config.secret import MASK, S, Secret, T, dec_hook, enc_hook_masked, merge_masked
from shared.config.secret_keys import SecretKeys
from shared.contracts.choices import FOUND_CHARS
from shared.contracts.messages import invalid_error
from shared.errors import InvalidError
from shared.runtime.logs import MIN_SECRET_CHARS, names_secret

SEALED = "fernet:"
"""Prefix of a secret at rest."""


class SecretStore:
    """
    Configuration to bytes at rest and back. The first key encrypts, all decrypt; `file` is where they are from.

    Raises:
        InvalidError: There is no key, or one is malformed; the message tells its position and never the key.
    """

    def __init__(self, keys: Sequence[str], file: Path | None = None) -> None:
        self.keys = SecretKeys(keys, file)

    def encode_sealed(self, value: Struct) -> bytes:
        """JSON for the bucket: every secret is encrypted."""
        self.keys.refresh()

        def seal(secret: Any) -> str:
            if not isinstance(secret, Secret):
                raise NotImplementedError(type(secret))
            return SEALED + self.keys.encrypt(secret.reveal())

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
                return Secret(self.keys.decrypt(value.removeprefix(SEALED)))
            except InvalidToken:
                raise ValueError("The secret cannot be decrypted with any of the configured keys") from None

        return _decoded(lambda: msgspec.json.decode(raw, type=type_, dec_hook=unseal), type_)

    def rekey(self, raw: bytes) -> tuple[bytes, tuple[str, ...]]:
        """
        The same JSON with every secret encrypted with the first key, and the paths of those that no key decrypts.

        Knows no type: a secret is a string that begins with `fernet:`, wherever it stands. One that does not decrypt
        stays as it is. Where nothing changes the bytes are the same.
        """
        changed = False
        lost: list[str] = []

        def walk(value: Any, path: str) -> Any:
            nonlocal changed
            if isinstance(value, dict):
                return {key: walk(item, f"{path}.{key}" if path else key) for key, item in value.items()}
            if isinstance(value, list):
                return [walk(item, f"{path}[{place}]") for place, item in enumerate(value)]
            if not isinstance(value, str) or not value.startswith(SEALED):
                return value
            token = value.removeprefix(SEALED)
            if self.keys.is_encrypted_with_first(token):
                return value
            try:
                secret = self.keys.decrypt(token)
            except InvalidToken:
                lost.append(path)
                return value
            changed = True
            return SEALED + self.keys.encrypt(secret)

        rekeyed = walk(_decoded(lambda: msgspec.json.decode(raw)), "")
        return msgspec.json.encode(rekeyed) if changed else raw, tuple(lost)

    @staticmethod
    def mask_sealed(raw: bytes) -> str:
        """The JSON of an entry for an operator who decides on it: every encrypted secret is `***`."""

        def walk(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: walk(item) for key, item in value.items()}
            if isinstance(value, list):
                return [walk(item) for item in value]
            return MASK if isinstance(value, str) and value.startswith(SEALED) else value

        return msgspec.json.encode(walk(_decoded(lambda: msgspec.json.decode(raw)))).decode()

    def from_form(self, new: dict[str, Any], type_: type[S], old: S | None) -> S:
        """
        The body of a `PUT` as a value of the type; the secrets that it leaves out or masks are the old value's.

        Raises:
            InvalidError: It does not fit the type; names the field. The message repeats no secret of the body.
        """
        try:
            return _decoded(lambda: msgspec.convert(merge_masked(new, old), type_, dec_hook=dec_hook), type_)
        except InvalidError as error:
            raise InvalidError(_without_secrets(error.message, new), field=error.field) from None

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


def _without_secrets(message: str, form: Any, levels: int = 8) -> str:
    """A message without the secrets of a form, which may stand in a wrong field as well."""
    values = form.items() if isinstance(form, dict) else enumerate(form) if isinstance(form, list) else ()
    for name, value in values:
        if isinstance(value, str):
            if len(value) >= MIN_SECRET_CHARS and names_secret(str(name)):
                # A long one was cut, after a quotation mark.
                message = message.replace(value, MASK).replace(value[: FOUND_CHARS - 1], MASK)
        elif levels:
            message = _without_secrets(message, value, levels - 1)
    return message


def _decoded(decode: Callable[[], T], kind: Any = Any) -> T:
    try:
        return decode()
    except msgspec.ValidationError as error:
        raise invalid_error(error, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"expected JSON: {error}") from None
