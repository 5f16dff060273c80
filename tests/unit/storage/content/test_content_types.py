"""The type of a file, detected from its bytes alone, and its Content-Disposition."""

import struct
from collections.abc import Iterable

import pytest

from storage.content.content_types import (
    AVIF,
    BINARY,
    GIF,
    HEAD_BYTES,
    HTML,
    JPEG,
    OTF,
    PDF,
    PNG,
    SVG,
    TEXT,
    TTC,
    TTF,
    WEBP,
    WOFF,
    WOFF2,
    XML,
    ContentType,
    disposition,
    sniff,
    sniff_head,
)


def kind_of(content: bytes) -> ContentType:
    return sniff(content[:HEAD_BYTES], lambda: [content])


def sfnt(signature: bytes, *, tables: int = 10, tag: bytes = b"GDEF") -> bytes:
    return signature + struct.pack(">HHHH", tables, 128, 3, 32) + tag + b"\x00" * 12 * tables


def woff(signature: bytes, *, flavor: bytes = b"\0\1\0\0", tables: int = 10) -> bytes:
    return signature + flavor + struct.pack(">IHH", 5000, tables, 0) + b"\x00" * 28


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", JPEG),
        (b"\x89PNG\r\n\x1a\n\x00\x00", PNG),
        (b"GIF89a\x01\x00", GIF),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", WEBP),
        (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", AVIF),
        (b"\x00\x00\x00\x20ftypavis\x00\x00\x00\x00", AVIF),
        (b"\x00\x00\x00\x20ftypheic\x00\x00\x00\x00", BINARY),
        (b"%PDF-1.7\n", PDF),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", SVG),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by hand -->\n<!DOCTYPE svg PUBLIC 'x' 'y'>\n<SVG >", SVG),
        (b"<!doctype html><p>", HTML),
        (b"  <script>alert(1)</script>", HTML),
        (b"<?xml version='1.0'?><feed/>", XML),
        ("şehir;ülke\n".encode(), TEXT),
        (b"\x00\x01\x02", BINARY),
        (b"\xff\xfe not UTF-8", BINARY),
        (b"", BINARY),
    ],
)
def test_sniff_detects_the_type_from_the_bytes(content: bytes, expected: ContentType) -> None:
    assert expected == kind_of(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xd8\xff\xe0 JFIF ... <script>alert(1)</script>", JPEG),
        (b"\xff\xd8\xff%PDF-1.7", JPEG),
        (b"GIF89a/*<script>*/=1;alert(1)", GIF),
        (b"%PDF-1.7\n<html><script>", PDF),
        (b"not %PDF-1.7, which begins elsewhere", TEXT),
        (b"\x00GIF89a", BINARY),
    ],
)
def test_file_of_two_types_has_the_type_of_its_first_bytes(content: bytes, expected: ContentType) -> None:
    assert expected == kind_of(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (woff(b"wOF2"), WOFF2),
        (woff(b"wOFF", flavor=b"OTTO"), WOFF),
        (sfnt(b"OTTO", tag=b"CFF "), OTF),
        (sfnt(b"\0\1\0\0"), TTF),
        (sfnt(b"\0\1\0\0", tag=b"OS/2"), TTF),
        (b"ttcf" + struct.pack(">III", 0x20000, 2, 20), TTC),
    ],
)
def test_sniff_detects_fonts(content: bytes, expected: ContentType) -> None:
    kind = kind_of(content)

    assert expected == kind
    assert kind.font


@pytest.mark.parametrize(
    "content",
    [
        b"\0\1\0\0",
        b"\0\1\0\0" + b"\x00" * 32,
        sfnt(b"\0\1\0\0", tables=0),
        sfnt(b"\0\1\0\0", tables=4000),
        sfnt(b"\0\1\0\0", tag=b"\x00\x01ab"),
        sfnt(b"\0\1\0\0")[:14],
        b"\0\1\0\0Standard Jet DB\0",
        woff(b"wOF2", flavor=b"\x89PNG"),
        woff(b"wOFF", tables=0),
        b"wOF2\0\1\0\0",
        b"ttcf" + struct.pack(">III", 0x30000, 2, 20),
    ],
)
def test_file_that_only_begins_like_a_font_is_none(content: bytes) -> None:
    assert BINARY == kind_of(content)


def test_text_that_begins_like_a_font_is_text() -> None:
    assert TEXT == kind_of(b"OTTO was here, and wrote this")


def test_whole_file_is_read_only_where_its_head_decides_nothing() -> None:
    def no_pieces() -> Iterable[bytes]:
        raise AssertionError

    assert PNG == sniff(b"\x89PNG\r\n\x1a\n", no_pieces)
    assert HTML == sniff(b"<!doctype html>", no_pieces)
    assert sniff_head(b"plain") is None


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"a" * HEAD_BYTES, "ğ".encode()[:1], "ğ".encode()[1:]], TEXT),
        ([b"a" * HEAD_BYTES, "ğ".encode()[:1]], BINARY),
        ([b"a" * HEAD_BYTES, "ğ".encode()[:1], b"a"], BINARY),
        ([b"a" * HEAD_BYTES, b"b" * 70_000 + b"\x00"], BINARY),
        ([b"a" * HEAD_BYTES, b"\t\r\n\x1b[1m"], TEXT),
    ],
    ids=["character across pieces", "cut off", "broken", "control character far in", "escapes"],
)
def test_text_is_text_to_its_end(pieces: list[bytes], expected: ContentType) -> None:
    assert expected == sniff(pieces[0][:HEAD_BYTES], lambda: pieces)


@pytest.mark.parametrize("kind", [SVG, HTML, XML, PDF, TEXT, BINARY])
def test_disposition_is_a_download_for_what_a_browser_could_run(kind: ContentType) -> None:
    assert disposition(kind, "").startswith("attachment")


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("", "inline"),
        ("cat.png", 'inline; filename="cat.png"'),
        ("kedi-ğ.png", "inline; filename=\"kedi-_.png\"; filename*=UTF-8''kedi-%C4%9F.png"),
        ('a"b.png', 'inline; filename="ab.png"'),
        ("a.png\r\nSet-Cookie: x=1", 'inline; filename="a.pngSet-Cookie: x=1"'),
        ("../../etc/passwd", 'inline; filename="passwd"'),
        ("C:\\temp\\cat.png", 'inline; filename="cat.png"'),
        ("\ud800.png", 'inline; filename="png"'),
    ],
)
def test_disposition_never_lets_a_name_leave_the_header(file_name: str, expected: str) -> None:
    assert expected == disposition(PNG, file_name)
