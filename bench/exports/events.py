"""The clicks that are exported, of 300 bytes each, and how they get into `EVENTS`."""

from collections.abc import Iterator

import msgspec
import nats
from msgspec import Struct

from shared.contracts import streams, subjects
from shared.contracts.messages import Event, make_attributes

APP = "shop"
USERS = 20_000
AT_ONCE = 1000
"""Messages that are published for one acknowledgement, well under what a stream keeps before it drops (10,000)."""
FIRST_MS = 1_795_314_667_000


class ClickLoad(Struct, frozen=True):
    """So many events, so many a message, one a millisecond."""

    events: int
    batch: int

    @property
    def messages(self) -> int:
        """The messages that hold them."""
        return self.events // self.batch


def _template(app_key: str) -> str:
    """A click with places for its number, its user's, its time, its partner's and its offer's."""
    click = Event(
        id="1%023d",
        app_key=app_key,
        type="click",
        code="click",
        user_id="user-%05d",
        occurred_at=1_000_000_000_000,
        attributes=make_attributes(
            {
                "country": "DE",
                "partner_id": 101,
                "offer_id": 202,
                "ip": "192.0.2.17",
                "ua": "Mozilla/5.0 (X11; Linux) Gecko/20100101 (KHTML, like Gecko)",
                "uniq": True,
                "sub1": "x",
            }
        ),
    )
    text = msgspec.json.encode(click).decode().replace("1000000000000", "%013d")
    return text.replace(":101,", ":%03d,").replace(":202,", ":%03d,")


async def publish(nats_url: str, load: ClickLoad, app_key: str = APP) -> None:
    """Store all of it."""
    async with await nats.connect(nats_url) as client:
        js = client.jetstream()
        for number, data in enumerate(_messages(load, app_key), 1):
            subject = subjects.events(app_key, number % subjects.PARTITIONS)
            if number % AT_ONCE and number < load.messages:
                await client.publish(subject, data)
            else:
                await js.publish(subject, data)
        stored = (await js.stream_info(streams.EVENTS.name, subjects_filter=subjects.events_of_app(app_key))).state
    assert sum((stored.subjects or {}).values()) == load.messages, stored


def _messages(load: ClickLoad, app_key: str) -> Iterator[bytes]:
    template = _template(app_key)
    for first in range(0, load.events, load.batch):
        clicks = [
            template % (number, number % USERS, FIRST_MS + number, number % 900 + 100, number % 700 + 100)
            for number in range(first, first + load.batch)
        ]
        yield f"[{','.join(clicks)}]".encode()
