"""
Who has tried too many wrong passwords and keys, and until when he is kept out. The rules; what keeps them is
`defender`. No I/O.

A ban is longer each time. Someone who signs in is not punished for it, and wipes out nothing that others of his address
have done.
"""

import math
from datetime import datetime, timedelta

from msgspec import Struct

from ftp_gateway.access.addresses import network_of

FAILURES_FADE_AFTER = timedelta(minutes=30)
"""How long it takes until as many failures as lead to a ban are forgotten, evenly."""
LONGEST_BAN = timedelta(hours=24)
BANS_FORGOTTEN_AFTER = timedelta(hours=24)
"""Without a failure for that long after the end of a ban, the next one is a first one again."""


class BanRules(Struct, frozen=True, kw_only=True):
    """
    `failures` within `FAILURES_FADE_AFTER` are a ban of `first`. Each later ban is twice as long, up to `LONGEST_BAN`.
    """

    failures: int = 15
    first: timedelta = timedelta(minutes=15)


class Score(Struct, frozen=True, kw_only=True):
    """What is held against one address (IPv6: a /64). `failures` are those at `changed_at`; they fade."""

    address: str
    failures: float
    changed_at: datetime
    bans: int = 0
    banned_until: datetime | None = None

    def is_banned(self, now: datetime) -> bool:
        return self.banned_until is not None and self.banned_until > now

    def is_forgotten(self, now: datetime) -> bool:
        """Whether nothing would be lost with it."""
        if self.bans:
            return now - max(self.changed_at, self.banned_until or self.changed_at) >= BANS_FORGOTTEN_AFTER
        return now - self.changed_at >= FAILURES_FADE_AFTER


def after_failures(score: Score | None, address: str, count: int, now: datetime, rules: BanRules) -> Score:
    """The score after that many failures more."""
    if score is None or score.is_forgotten(now):
        score = Score(address=network_of(address), failures=0.0, changed_at=now)
    faded = rules.failures * max(0.0, (now - score.changed_at) / FAILURES_FADE_AFTER)
    failures = max(0.0, score.failures - faded) + count
    bans, until = score.bans, score.banned_until
    # Rounded up: a guesser who takes seconds for his guesses has not been forgotten a whole one.
    if math.ceil(failures) >= rules.failures and not score.is_banned(now):
        bans, until = bans + 1, now + min(LONGEST_BAN, rules.first * 2 ** min(bans, 20))
        failures = 0.0
    return Score(address=score.address, failures=failures, changed_at=now, bans=bans, banned_until=until)
