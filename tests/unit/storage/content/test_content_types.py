"""The type of a file, detected from its bytes alone, and its Content-Disposition."""

import struct
from collections.abc import Iterable

import pytest

from storage.content.content_types import (
    AVIF,
    BINARY,
    BY_EXTENSION,
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


def media(brand: bytes) -> bytes:
    """The beginning of an ISO base media file."""
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + b"isom" + bytes(64)


@pytest.mark.parametrize(
    ("content", "extension", "name"),
    [
        (media(b"mp42"), "mp4", "video/mp4"),
        (media(b"isom"), "mp4", "video/mp4"),
        (media(b"M4V "), "mp4", "video/mp4"),
        (media(b"qt  "), "mov", "video/quicktime"),
        (media(b"M4A "), "m4a", "audio/mp4"),
        (media(b"heic"), "heic", "image/heic"),
        (media(b"3gp5"), "3gp", "video/3gpp"),
        (media(b"none"), "bin", "application/octet-stream"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\x82\x84webm", "webm", "video/webm"),
        (b"ID3\x04\0\0\0\0\0\0" + bytes(9), "mp3", "audio/mpeg"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "wav", "audio/wav"),
        (b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n", "ics", "text/calendar; charset=utf-8"),
        (b"\xef\xbb\xbfBEGIN:VCALENDAR\nEND:VCALENDAR\n", "ics", "text/calendar; charset=utf-8"),
        (b"BEGIN:VCARD\r\nVERSION:4.0\r\nEND:VCARD\r\n", "vcf", "text/vcard; charset=utf-8"),
        (b"BEGIN:VCALENDAR\r\n\0", "bin", "application/octet-stream"),
        (b"BEGIN:VCALENDARS\r\n", "txt", "text/plain; charset=utf-8"),
        (b"{\\rtf1\\ansi}", "rtf", "application/rtf"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "7z", "application/x-7z-compressed"),
    ],
)
def test_sniff_detects_what_people_attach(content: bytes, extension: str, name: str) -> None:
    kind = kind_of(content)

    assert (extension, name) == (kind.extension, kind.name)
    assert not kind.inline
    assert BY_EXTENSION[extension] is kind


def test_no_two_types_have_one_extension() -> None:
    names = [kind.name for kind in BY_EXTENSION.values()]

    assert sorted(set(names)) == sorted(names)


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
        ("", "attachment"),
        ("bill.pdf", 'attachment; filename="bill.pdf"'),
        ("fatura-ğ.pdf", "attachment; filename=\"fatura-_.pdf\"; filename*=UTF-8''fatura-%C4%9F.pdf"),
        ('a"b.pdf', 'attachment; filename="ab.pdf"'),
        ("a.pdf\r\nSet-Cookie: x=1", 'attachment; filename="a.pdfSet-Cookie: x=1"'),
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("C:\\temp\\bill.pdf", 'attachment; filename="bill.pdf"'),
        ("\ud800.pdf", 'attachment; filename="pdf"'),
        ("%50 indirim.pdf", "attachment; filename=\"_50 indirim.pdf\"; filename*=UTF-8''%2550%20indirim.pdf"),
        ("100% wool.pdf", "attachment; filename=\"100_ wool.pdf\"; filename*=UTF-8''100%25%20wool.pdf"),
        ("a;b.pdf", "attachment; filename=\"a_b.pdf\"; filename*=UTF-8''a%3Bb.pdf"),
        (
            "Ayşe'nin dosyası.pdf",
            "attachment; filename=\"Ay_e_nin dosyas_.pdf\"; filename*=UTF-8''Ay%C5%9Fe%27nin%20dosyas%C4%B1.pdf",
        ),
        ("what?.pdf", "attachment; filename=\"what_.pdf\"; filename*=UTF-8''what%3F.pdf"),
    ],
)
def test_disposition_keeps_a_name_and_never_lets_it_leave_the_header(file_name: str, expected: str) -> None:
    assert expected == disposition(PDF, file_name)


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("a" * 300 + ".pdf", "a" * 124 + ".pdf"),
        ("a" * 123 + ". ." + "b" * 60 + ".pdf", "a" * 123 + ".pdf"),
        ("a" * 300, "a" * 128),
        ("a" * 100 + "." + "b" * 100, "a" * 100 + "." + "b" * 27),
        ("." * 10 + "a" * 300 + ".tar.gz", "a" * 125 + ".gz"),
    ],
)
def test_a_long_name_keeps_its_extension(file_name: str, expected: str) -> None:
    assert f'attachment; filename="{expected}"' == disposition(PDF, file_name)


def test_what_a_browser_shows_has_no_name() -> None:
    assert "inline" == disposition(PNG, "draft.png")
