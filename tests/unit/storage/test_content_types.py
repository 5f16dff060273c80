"""What a file is, told from its bytes alone, and how a browser may treat it."""

import pytest

from storage.content_types import (
    BINARY,
    GIF,
    HTML,
    JPEG,
    PDF,
    PNG,
    SVG,
    TEXT,
    WEBP,
    XML,
    ContentType,
    disposition,
    sniff,
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", JPEG),
        (b"\x89PNG\r\n\x1a\n\x00\x00", PNG),
        (b"GIF89a\x01\x00", GIF),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", WEBP),
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
def test_sniff_tells_the_type_from_the_bytes(content: bytes, expected: ContentType) -> None:
    assert expected == sniff(content)


@pytest.mark.parametrize(("head", "name"), [(b"wOF2", "font/woff2"), (b"OTTO", "font/otf"), (b"\0\1\0\0", "font/ttf")])
def test_sniff_knows_fonts(head: bytes, name: str) -> None:
    kind = sniff(head + b"\x00" * 32)

    assert name == kind.name
    assert kind.font


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
