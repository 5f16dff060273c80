"""Messages with their length before them."""

from io import BytesIO

import msgspec
from msgspec import Struct

from shared.runtime.framing import framed, read_frame


class Note(Struct, frozen=True):
    text: str


def test_messages_are_read_one_after_the_other_until_the_end() -> None:
    notes = [Note("a"), Note(""), Note("c" * 70_000)]
    stream = BytesIO(b"".join(framed(note) for note in notes))

    bodies = [read_frame(stream) for _ in notes]

    assert notes == [msgspec.msgpack.decode(body or b"", type=Note) for body in bodies]
    assert read_frame(stream) is None
