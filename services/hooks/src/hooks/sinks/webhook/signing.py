"""Signatures of Standard Webhooks (standardwebhooks.com, 1.0.0)."""

import base64
import binascii
import hashlib
import hmac
from typing import Final

from shared.config.secret import Secret
from shared.errors import InvalidError

KEY_BYTES: Final = range(24, 65)
"""Standard Webhooks, Signature scheme: 192 to 512 bits."""


def signing_key(secret: Secret) -> bytes:
    """
    The key in a secret, which may begin with `whsec_`, as with the libraries of Standard Webhooks. Raises
    `InvalidError` where there is none.
    """
    try:
        key = base64.b64decode(secret.reveal().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_BYTES:
        raise InvalidError("expected 24 to 64 random bytes in Base64, which whsec_ may precede", field="secret")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"
