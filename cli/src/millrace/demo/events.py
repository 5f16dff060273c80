"""
The 10,000 events of the demo: always the same but for their time, so the expected records are known beforehand.

Pure: the steps publish the events and read them back.
"""

import random
from collections.abc import Iterable, Mapping, Sequence

from shared.contracts.messages import Event, EventType, Identities, User, make_attributes

EVENTS = 10_000
USERS = 500
SEED = 20_261_122

MIX: tuple[tuple[EventType, str, int], ...] = (
    ("event", "purchase", 25),
    ("event", "screen_view", 35),
    ("message_log", "PUSH_DELIVERED", 12),
    ("message_log", "PUSH_OPENED", 6),
    ("click", "click", 14),
    ("conversion", "conversion", 8),
)
"""Type, code, and per cent."""

PLACE = "n"
"""The attribute that holds an event's place among all events, by which a reader sees that an order was kept."""


def make_events(app_key: str, *, started_at_ms: int) -> list[Event]:
    """Events in the order in which they happened, one a millisecond."""
    chance = random.Random(SEED)
    kinds = chance.choices(MIX, weights=[share for _, _, share in MIX], k=EVENTS)
    return [_event(app_key, place, kind, code, started_at_ms, chance) for place, (kind, code, _) in enumerate(kinds)]


def _event(app_key: str, place: int, kind: EventType, code: str, started_at_ms: int, chance: random.Random) -> Event:
    number = chance.randrange(USERS)
    return Event(
        id=f"demo-{place:05d}",
        app_key=app_key,
        type=kind,
        code=code,
        user_id=f"user-{number:03d}",
        ext_id=f"{number:05d}",
        occurred_at=started_at_ms + place,
        attributes=make_attributes({PLACE: place, **_attributes(code, chance)}),
        user=User(attributes=make_attributes({"tier": ("bronze", "silver", "gold")[number % 3]})),
        identities=Identities(email=f"user{number:03d}@example.com"),
    )


def _attributes(code: str, chance: random.Random) -> dict[str, object]:
    if code == "purchase":
        return {"total": round(chance.uniform(5, 400), 2), "currency": "TRY", "items": chance.randint(1, 5)}
    if code == "screen_view":
        return {"screen": chance.choice(("home", "search", "product", "cart"))}
    if code in ("click", "conversion"):
        return {
            "click_id": f"{chance.getrandbits(96):024x}",
            "offer_id": chance.randint(1, 40),
            "partner_id": chance.randint(1, 20),
            "supplier_id": f"{chance.randint(1, 9):024x}",
            "country": chance.choice(("TR", "DE", "NL")),
            **({"payout": round(chance.uniform(0.5, 20), 2)} if code == "conversion" else {}),
        }
    return {"campaign": chance.choice(("spring", "autumn"))}


class StreamCheck:
    """
    Comparison of the records in a stream with those expected.

    Args:
        expected: Ids of every user, in their order.
        arrived: (user, id) of every record as it lay in its shard, shard after shard.
    """

    def __init__(self, expected: Mapping[str, Sequence[str]], arrived: Iterable[tuple[str, str]]) -> None:
        seen: dict[str, dict[str, None]] = {}
        self.records = 0
        for user, id in arrived:
            self.records += 1
            seen.setdefault(user, {}).setdefault(id)
        unique = sum(len(ids) for ids in seen.values())
        wanted = {id for ids in expected.values() for id in ids}
        found = {id for ids in seen.values() for id in ids}
        self.expected = len(wanted)
        self.duplicates = self.records - unique
        self.missing = len(wanted - found)
        self.unexpected = len(found - wanted)
        self.out_of_order = sum(
            [id for id in ids if id in found] != [id for id in seen.get(user, {}) if id in wanted]
            for user, ids in expected.items()
        )
        """Users whose events came in another order than they happened."""

    @property
    def exact(self) -> bool:
        """Every event once, in the order of its user, and nothing else."""
        return not (self.missing or self.unexpected or self.out_of_order or self.duplicates)

    def __str__(self) -> str:
        counts = [f"{self.records} records", f"{self.duplicates} duplicates"]
        counts += [f"{self.missing} missing"] if self.missing else []
        counts += [f"{self.unexpected} not expected"] if self.unexpected else []
        counts += [f"{self.out_of_order} users out of order" if self.out_of_order else "every user in order"]
        return ", ".join(counts)


def ids_by_user(events: Iterable[Event]) -> dict[str, list[str]]:
    """Ids of every user, in the order given."""
    ids: dict[str, list[str]] = {}
    for event in events:
        ids.setdefault(event.user_id, []).append(event.id)
    return ids
