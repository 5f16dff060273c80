"""Ids that are made here: ULIDs (github.com/ulid/spec)."""

import secrets
from typing import Final

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def make_ulid(now_ms: int) -> str:
    """
    A ULID: 26 characters of Crockford's Base32, the first ten for the time, the others for 80 random bits.

    ULIDs sort by `now_ms`, in milliseconds since 1970. Those of one millisecond sort at random.
    """
    number = (now_ms & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
