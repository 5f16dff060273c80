"""Ids of runs."""

from datetime import datetime

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def run_id(now: datetime, entropy: bytes) -> str:
    """A ULID: 48 bits of milliseconds, then 80 of `entropy`, so that ids sort by time."""
    value = int(now.timestamp() * 1000) << 80 | int.from_bytes(entropy[:10], "big")
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -5, -5))
