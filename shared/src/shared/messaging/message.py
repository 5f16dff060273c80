"""
Messages of a stream: one that was received, with its position in the stream, and one to be published.

Headers are parsed when they are asked for, and ack subjects here and in `shared.messaging.nats_py.parser` alone.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct
from nats.aio.msg import Msg


class Message(Struct, eq=False, gc=False):
    """
    A message of a stream.

    `sequence` is its position in the stream. `pending` counts the matching messages behind it when it was sent, and
    `delivered` its deliveries, from 1. `reply` is for `shared.messaging.pull`, which acknowledges. `raw_headers` are
    bytes where our parser delivered the message.
    """

    subject: str
    data: bytes
    sequence: int
    at_ns: int
    raw_headers: Mapping[str, str] | bytes = b""
    delivered: int = 1
    pending: int = 0
    reply: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, parsed at the first use: few messages need them."""
        if isinstance(self.raw_headers, bytes):
            lines = (line.partition(":") for line in self.raw_headers.decode().split("\r\n")[1:] if line)
            self.raw_headers = {name: value.strip() for name, _, value in lines}
        return self.raw_headers

    @property
    def at(self) -> datetime:
        """The time when the stream stored it."""
        return datetime.fromtimestamp(self.at_ns / 1e9, UTC)


class OutgoingMessage(Struct, frozen=True):
    """A message to be published together with others; the fields are those of `Bus.publish`."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = {}
    expect_last_sequence: int | None = None


def headers_of(message: OutgoingMessage) -> dict[str, str]:
    """The headers to send, with the expected last sequence."""
    headers = dict(message.headers)
    if message.expect_last_sequence is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(message.expect_last_sequence)
    return headers


def parse_delivered(received: Msg) -> tuple[Message, int]:
    """
    A delivered message and its consumer sequence, from the ack subject (NATS ADR-15): nine tokens, or more where it
    also names domain and account.
    """
    tokens = received.reply.split(".")
    delivered, sequence, consumer_sequence, at_ns, pending = tokens[4:9] if len(tokens) == 9 else tokens[6:11]
    message = Message(
        received.subject,
        received.data,
        sequence=int(sequence),
        at_ns=int(at_ns),
        raw_headers=received.headers or b"",
        delivered=int(delivered),
        pending=int(pending),
        reply=received.reply,
    )
    return message, int(consumer_sequence)
