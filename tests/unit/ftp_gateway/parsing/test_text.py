import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.model.rules import Fallback
from ftp_gateway.parsing.text import MAX_LINE_BYTES, FileScan, Lines, RefusedError, Text, line_of


def scanned(data: bytes, fallback: Fallback | None = None, block: int = 7) -> Text:
    scan = FileScan("shop", "push")
    for at in range(0, len(data), block):
        scan.feed(data[at : at + block])
    return scan.result(fallback)


def lines(data: bytes, fallback: Fallback | None = None, block: int = 7) -> list[str | None]:
    return lines_as(scanned(data, fallback), data, block)


def lines_as(text: Text, data: bytes, block: int) -> list[str | None]:
    reader = Lines(text)
    found = b"".join(reader.feed(data[at : at + block]) for at in range(0, len(data), block)) + reader.finish()
    return [line_of(line) for line in found.split(b"\n")[:-1]]


def refusal(data: bytes, fallback: Fallback | None = None) -> str:
    with pytest.raises(RefusedError) as refused:
        scanned(data, fallback)
    return refused.value.reason


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"a;b;c\n", "utf-8"),
        (codecs.BOM_UTF8 + b"a;b;c\n", "utf-8"),
        (codecs.BOM_UTF16_LE + "a;ğ;c\n".encode("utf-16-le"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + "a;ğ;c\n".encode("utf-16-be"), "utf-16-be"),
        ("Çağrı\n".encode("cp1254"), "windows-1254"),
    ],
)
def test_the_encoding_is_found_by_mark_then_utf8_then_the_fallback(data: bytes, encoding: str) -> None:
    assert encoding == scanned(data, "windows-1254").encoding


def test_every_encoding_gives_the_same_lines() -> None:
    text = "1;Çağrı İçin şimdi;https://x.example\r\n2;€;https://y.example\n"
    expected = ["1;Çağrı İçin şimdi;https://x.example", "2;€;https://y.example"]

    assert expected == lines(text.encode())
    assert expected == lines(codecs.BOM_UTF8 + text.encode())
    assert expected == lines(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    assert expected == lines(codecs.BOM_UTF16_BE + text.encode("utf-16-be"))
    assert expected == lines(text.encode("cp1254"), "windows-1254")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (codecs.BOM_UTF8, "empty"),
        (b"1;\xfe\xff;https://x\n", "encoding"),
        (codecs.BOM_UTF8 + b"1;\xfe;https://x\n", "encoding"),
        (codecs.BOM_UTF16_LE + b"1\x00;\x00x", "encoding"),
        (b"1;a\x00b;https://x\n", "nul"),
        (codecs.BOM_UTF16_LE + "1;a\0b;https://x\n".encode("utf-16-le"), "nul"),
        ("1;a;b\n".encode("utf-16-le"), "nul"),
        (b"1;a;https://x\r2;b;https://y\r", "line_ends"),
        (b"x" * (MAX_LINE_BYTES + 1), "not_text"),
    ],
)
def test_what_is_no_text_file_is_refused_by_name(data: bytes, reason: str) -> None:
    assert reason == refusal(data)


@pytest.mark.parametrize("code", [0x81, 0x8D, 0x8E, 0x8F, 0x90, 0x9D, 0x9E])
def test_bytes_that_windows_1254_does_not_have_are_refused(code: int) -> None:
    assert refusal(b"1;\xfe" + bytes([code]) + b";https://x\n", "windows-1254") == "encoding"


def test_a_file_in_the_fallback_is_refused_where_the_app_has_none() -> None:
    assert refusal("Çağrı\n".encode("cp1254")) == "encoding"


def test_lines_are_numbered_as_an_editor_does_when_one_is_too_long() -> None:
    data = b"first\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\nthird"

    assert ["first", None, "third"] == lines(data, block=4096)


def test_only_a_line_feed_ends_a_line() -> None:
    text = "a\x0bb\u2028c\x85d\x0ce\n"

    assert [text.rstrip("\n")] == lines(text.encode())


def test_the_id_depends_on_app_kind_and_content_alone() -> None:
    def identity(app_key: str, kind: str, data: bytes, block: int) -> str:
        scan = FileScan(app_key, kind)
        for at in range(0, len(data), block):
            scan.feed(data[at : at + block])
        return scan.result(None).file_id

    first = identity("shop", "push", b"1;a;b\n", 1)

    assert first == identity("shop", "push", b"1;a;b\n", 6)
    assert len(first) == 32
    assert len({first, identity("rival", "push", b"1;a;b\n", 6), identity("shop", "profile", b"1;a;b\n", 6)}) == 3


@pytest.mark.parametrize("twice", ["Ä±yi gÃ¼nler", "akÅŸamlar"])
def test_text_that_was_encoded_twice_is_warned_of(twice: str) -> None:
    assert scanned(f"1;{twice};https://x\n".encode(), block=100).warnings == ("double_encoding",)
    assert scanned("1;iyi akşamlar;https://x\n".encode()).warnings == ()


@given(data=st.binary(max_size=400), block=st.integers(1, 50))
def test_any_bytes_are_lines_or_refused_whatever_the_blocks(data: bytes, block: int) -> None:
    def outcome(size: int) -> object:
        try:
            text = scanned(data, "windows-1254", size)
        except RefusedError as refused:
            return refused.reason
        return lines_as(text, data, size)

    assert outcome(1000) == outcome(block)
