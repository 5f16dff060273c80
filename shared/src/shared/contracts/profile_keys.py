"""
Keys of profiles in the bucket `PROFILES`: `<app>.<external id in Base32>`, or `<app>.sha256-<digest>` for a long one.

The gateway merges profiles by the thousand, so many keys are made at once. The other buckets' keys are in
`shared.contracts.keys`.
"""

import base64
from collections.abc import Sequence
from hashlib import sha256

ENCODED_BYTES = 1024
"""
The longest external id, in bytes of UTF-8, that stands in its key. A key is part of a NATS subject, and the server
closes the connection of a client that sends a control line of more than 4,096 bytes.
"""


def profile_key(app_key: str, ext_id: str) -> str:
    """The key of a profile. The external id is Base32, because a key allows few characters and keeps no case rule."""
    encoded = ext_id.encode()
    if len(encoded) > ENCODED_BYTES:
        return f"{app_key}.sha256-{sha256(encoded).hexdigest()}"
    return f"{app_key}.{base64.b32encode(encoded).decode().rstrip('=')}"


def profile_keys_of_app(app_key: str) -> str:
    """All keys in `PROFILES` of one app: a filter."""
    return f"{app_key}.>"


def is_profile_key_of(app_key: str, key: str) -> bool:
    """Return whether a key in `PROFILES` is that of an app's profile."""
    return key.startswith(f"{app_key}.")


_BASE32 = bytes.maketrans(bytes(range(32)), b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_BASE32_STEPS = ((8, 20, 12), (4, 10, 6), (2, 5, 3))
"""
Steps that spread forty bits over eight bytes, halving until each five bits have a byte. A step is the bytes of what is
split, the bits of a half, and how far the upper half moves.
"""


def profile_keys(app_key: str, ext_ids: Sequence[str]) -> list[str]:
    """
    The keys of many profiles, equal to those of `profile_key`.

    All are encoded as one number: one after the other in the standard library took two fifths of a merge's time.
    """
    encoded = [ext_id.encode() for ext_id in ext_ids]
    if encoded and max(map(len, encoded)) > ENCODED_BYTES:
        return [profile_key(app_key, ext_id) for ext_id in ext_ids]
    data = b"".join([part.ljust(-(-len(part) // 5) * 5, b"\0") for part in encoded])
    groups = bytearray(len(data) // 5 * 8)
    for at in range(5):
        groups[3 + at :: 8] = data[at::5]
    bits = int.from_bytes(groups, "big")
    for width, size, distance in _BASE32_STEPS:
        low = int.from_bytes(((1 << size) - 1).to_bytes(width, "big") * (len(groups) // width), "big")
        bits = bits & low | (bits & low << size) << distance
    digits = bits.to_bytes(len(groups), "big").translate(_BASE32).decode()
    keys: list[str] = []
    at = 0
    for part in encoded:
        keys.append(f"{app_key}.{digits[at : at + -(-len(part) * 8 // 5)]}")
        at += -(-len(part) // 5) * 8
    return keys
