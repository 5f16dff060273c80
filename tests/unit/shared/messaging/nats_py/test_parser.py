"""The short way of messages of streams: whatever the pieces in which they come, each is handed over whole, in order."""

from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.nats_py.parser import StreamParser


class Client:
    """The methods of a client that nats-py's parser calls."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.seen.append((f"message {sid} {subject.decode()} {reply.decode()}", (headers or b"") + data))

    async def _process_ping(self) -> None:
        self.seen.append(("ping", b""))

    async def _process_pong(self) -> None:
        self.seen.append(("pong", b""))

    async def _process_err(self, error: str) -> None:
        self.seen.append((f"error {error}", b""))


OURS, OTHERS = 7, 8
HEADER = b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"


def delivered(sid: int, sequence: int, body: bytes, headers: bytes = b"") -> tuple[bytes, tuple[str, bytes]]:
    """A message of a stream on the wire, and the object made of it."""
    reply = f"$JS.ACK.EVENTS.hooks-p01.1.{sequence}.{sequence}.1790000000000000000.5"
    length = f"{len(headers)} {len(headers) + len(body)}" if headers else f"{len(body)}"
    line = f"{'H' if headers else ''}MSG events.shop.1 {sid} {reply} {length}\r\n"
    name = f"ours {sequence}" if sid == OURS else f"message {sid} events.shop.1 {reply}"
    return line.encode() + headers + body + b"\r\n", (name, headers + body)


OPERATIONS = st.one_of(
    st.builds(
        delivered,
        st.sampled_from([OURS, OTHERS]),
        st.integers(1, 10**12),
        st.one_of(st.binary(max_size=60), st.just(b"PING\r\nMSG a 7 1\r\n")),
        st.sampled_from([b"", HEADER]),
    ),
    st.just((b"PING\r\n", ("ping", b""))),
    st.just((b"PONG\r\n", ("pong", b""))),
    st.just((b"+OK\r\n", None)),
    st.just((b"MSG inbox 7 3\r\nabc\r\n", ("message 7 inbox ", b"abc"))),
    st.just((b"HMSG inbox 7 12 12\r\nNATS/1.0\r\n\r\n\r\n", ("message 7 inbox ", b"NATS/1.0\r\n\r\n"))),
    st.just((b"-ERR 'Slow Consumer'\r\n", ("error 'slow consumer'", b""))),
)


@given(st.lists(OPERATIONS, max_size=12), st.lists(st.integers(1, 80), min_size=1, max_size=20))
async def test_everything_arrives_whole_and_in_order_however_it_is_cut(
    operations: list[tuple[bytes, tuple[str, bytes] | None]], cuts: list[int]
) -> None:
    client = Client()
    parser = StreamParser(client)

    def deliver(subject: str, reply: str, tokens: list[str], headers: bytes, body: bytes) -> None:
        assert headers in (b"", HEADER)
        assert ("events.shop.1", reply) == (subject, ".".join(tokens))
        client.seen.append((f"ours {tokens[5]}", headers + body))

    parser.deliver[str(OURS)] = deliver
    wire = b"".join(sent for sent, _ in operations)
    at = turn = 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        await parser.parse(wire[at : at + size])
        at, turn = at + size, turn + 1

    assert [seen for _, seen in operations if seen is not None] == client.seen


async def test_new_connection_forgets_what_was_cut_off() -> None:
    client = Client()
    parser = StreamParser(client)
    wire, seen = delivered(OTHERS, 1, b"hello")
    await parser.parse(wire[:-4])

    parser.reset()
    await parser.parse(wire)

    assert [seen] == client.seen
