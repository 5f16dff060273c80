"""The type of a compound file, from the names in its root."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.content.content_types import BINARY, OLE, sniff
from storage.content.ole_types import SECTORS, ole_type

NONE = 0xFFFFFFFF
END = 0xFFFFFFFE


def entry(name: str, *, before: int = NONE, after: int = NONE, child: int = NONE) -> bytes:
    text = name.encode("utf-16-le") + b"\0\0"
    return struct.pack("<64sHBBIII48x", text, len(text), 2, 1, before, after, child)


def compound(*entries: bytes, shift: int = 9, apart: int = 0, end: int = END) -> bytes:
    """A compound file: its allocation table in sector 0, its directory in the next ones, `apart` sectors between."""
    size = 1 << shift
    each = size // 128
    parts = [b"".join(entries[at : at + each]).ljust(size, b"\0") for at in range(0, len(entries), each)]
    places = [1 + number * (1 + apart) for number in range(len(parts))]
    table = [NONE] * (size // 4)
    for place, following in zip(places, [*places[1:], end], strict=True):
        table[place] = following
    header = bytearray(512)
    header[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    struct.pack_into("<H", header, 30, shift)
    struct.pack_into("<I", header, 48, places[0])
    struct.pack_into("<109I", header, 76, 0, *[NONE] * 108)
    sectors = {0: struct.pack(f"<{size // 4}I", *table)} | dict(zip(places, parts, strict=True))
    content = [sectors.get(number, b"\0" * size) for number in range(places[-1] + 1)]
    return bytes(header).ljust(size, b"\0") + b"".join(content)


ROOT = entry("Root Entry", child=1)


@pytest.mark.parametrize("shift", [9, 12])
@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("WordDocument", "doc"),
        ("Workbook", "xls"),
        ("BOOK", "xls"),
        ("PowerPoint Document", "ppt"),
        ("__properties_version1.0", "msg"),
        ("Contents", "bin"),
    ],
)
def test_kind_is_that_of_the_stream_in_the_root(name: str, extension: str, shift: int) -> None:
    # Enough entries for a second sector of the directory, which lies elsewhere in the file.
    others = [entry(f"Data{number}", after=number + 2) for number in range(1, 40)]

    content = compound(ROOT, entry("1Table", after=2), *others, entry(name), shift=shift, apart=2)

    assert ole_type(BytesIO(content)).extension == extension
    assert sniff(content[:4096], lambda: [content]) is OLE


def test_document_that_is_embedded_is_not_the_kind() -> None:
    embedded = entry("MBD0001", child=3, before=2)

    content = compound(ROOT, embedded, entry("Workbook"), entry("WordDocument"))

    assert ole_type(BytesIO(content)).extension == "xls"


@pytest.mark.parametrize("circle", [1, 0])
def test_chain_and_names_that_go_in_circles_end(circle: int) -> None:
    content = compound(ROOT, entry("Data", before=1, after=1), end=circle)

    assert SECTORS == 64
    assert ole_type(BytesIO(content)) is BINARY


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_damaged_file_is_of_no_known_kind_or_read_as_it_was(damage: bytes, at: int) -> None:
    whole = compound(ROOT, entry("Contents"))

    assert ole_type(BytesIO(whole[:at] + damage)).extension in {"bin", "doc", "xls", "ppt", "msg"}
    assert ole_type(BytesIO(whole[:at])) is BINARY
