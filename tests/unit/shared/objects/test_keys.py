"""Rules for keys, folders and headers."""

import pytest

from shared.errors import InvalidError
from shared.objects.keys import KEY_BYTES, check_key, content_type_of, folder_of, headers_of


@pytest.mark.parametrize("key", ["a", "2026-11-22 02:45:00.csv.gz", "a/b/c", "ğ/ş", "#1/a", "a#", "x" * KEY_BYTES])
def test_a_good_key_is_returned(key: str) -> None:
    assert key == check_key(key)


@pytest.mark.parametrize(
    "key", ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a\tb", "a\x7f", "\ud800", "ş" * 513, "a#1"]
)
def test_a_bad_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_key(key)

    assert "key" == caught.value.field


@pytest.mark.parametrize(("prefix", "folder"), [("", None), ("/", None), ("a", "a"), ("a/b/", "a/b")])
def test_a_prefix_is_a_folder(prefix: str, folder: str | None) -> None:
    assert folder == folder_of(prefix)


@pytest.mark.parametrize(
    ("key", "content_type"),
    [
        ("a.png", "image/png"),
        ("a/b.JPG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.csv", "text/csv"),
        ("a.csv.gz", "application/gzip"),
        ("a.woff2", "font/woff2"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_content_type_follows_from_the_name(key: str, content_type: str) -> None:
    assert content_type == content_type_of(key)


def test_headers_that_are_none_are_left_out() -> None:
    assert {"Content-Type": "a/b"} == headers_of("a/b", None, None, None)
    assert {"Content-Type": "a/b", "Cache-Control": "no-store", "rows": "1"} == headers_of(
        "a/b", "no-store", None, {"rows": "1"}
    )


@pytest.mark.parametrize("value", ["a\r\nb: c", "ğ", "\x00"])
def test_a_header_is_printable_ascii(value: str) -> None:
    with pytest.raises(InvalidError) as caught:
        headers_of("a/b", None, value, None)

    assert "Content-Disposition" == caught.value.field


@pytest.mark.parametrize("name", ["", "Rows", "app-key", "1a", "a b"])
def test_a_name_of_metadata_is_one_that_azure_takes(name: str) -> None:
    with pytest.raises(InvalidError):
        headers_of("a/b", None, None, {name: "x"})
