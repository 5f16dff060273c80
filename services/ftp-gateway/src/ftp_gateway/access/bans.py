"""
Rules of bans for wrong passwords and keys. `defender` stores the scores. No I/O.

Each ban is longer than the one before. A login clears no score, since others at the same address may have failed.
"""

import math
from datetime import datetime, timedelta

from msgspec import Struct

from shared.client_addresses import network_of

FAILURES_FADE_AFTER = timedelta(minutes=30)
"""Time in which as many failures as lead to a ban fade away, evenly."""
LONGEST_BAN = timedelta(hours=24)
BANS_FORGOTTEN_AFTER = timedelta(hours=24)
"""Quiet time after the end of a ban, after which the next ban is a first one again."""


class BanRules(Struct, frozen=True, kw_only=True):
    """
    Rules of bans.

    `failures` within `FAILURES_FADE_AFTER` are a ban of `first`. Each later ban is twice as long, up to `LONGEST_BAN`.
    """

    failures: int = 15
    first: timedelta = timedelta(minutes=15)


class Score(Struct, frozen=True, kw_only=True):
    """Score of one address (IPv6: a /64). `failures` are those at `changed_at`; they fade."""

    address: str
    failures: float
    changed_at: datetime
    bans: int = 0
    banned_until: datetime | None = None

    def is_banned(self, now: datetime) -> bool:
        return self.banned_until is not None and self.banned_until > now

    def is_forgotten(self, now: datetime) -> bool:
        """Return whether the score can be dropped without any effect."""
        if self.bans:
            return now - max(self.changed_at, self.banned_until or self.changed_at) >= BANS_FORGOTTEN_AFTER
        return now - self.changed_at >= FAILURES_FADE_AFTER


def after_failures(score: Score | None, address: str, count: int, now: datetime, rules: BanRules) -> Score:
    """Return the score after more failures."""
    if score is None or score.is_forgotten(now):
        score = Score(address=network_of(address), failures=0.0, changed_at=now)
    faded = rules.failures * max(0.0, (now - score.changed_at) / FAILURES_FADE_AFTER)
    failures = max(0.0, score.failures - faded) + count
    bans, until = score.bans, score.banned_until
    # Rounded up: seconds between guesses do not make a whole guess fade.
    if math.ceil(failures) >= rules.failures and not score.is_banned(now):
        bans, until = bans + 1, now + min(LONGEST_BAN, rules.first * 2 ** min(bans, 20))
        failures = 0.0
    return Score(address=score.address, failures=failures, changed_at=now, bans=bans, banned_until=until)
