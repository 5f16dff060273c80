"""The line of every key of a TOML document."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.configuration.toml_positions import Path, dotted, key_lines, line_of, path_from_dotted

DOCUMENT = '''\
# A comment with [brackets] and key = "value"
title = "first" # = "not this"

[apps.shop]
display_name = "It's \\"quoted\\" # no comment"
timezone = 'Europe/Istanbul'

  [ apps . "my shop" . hooks . 'a.b' ]
  filter.codes = [
    "purchase", # [one]
    "]", '"""',
    { name = "deep", when = { at = 1979-05-27 07:32:00 } },
  ]
  text = """
[not.a.table]
not_a_key = 1
"""
  raw = \'\'\'
also_no_key = """
\'\'\'
  after = true

[[apps.shop.rows]]
id = 1
[apps.shop.rows.more]
x = 0.5
[[apps.shop.rows]]
id = 2
quotes = """ends with two quotes"""""
last = { a.b = 1, c = [[1, 2], [3]] }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("apps", "shop"), 4),
        (("apps", "shop", "display_name"), 5),
        (("apps", "my shop", "hooks", "a.b"), 8),
        (("apps", "my shop", "hooks", "a.b", "filter", "codes"), 9),
        (("apps", "my shop", "hooks", "a.b", "filter", "codes", 1), 11),
        (("apps", "my shop", "hooks", "a.b", "filter", "codes", 3, "when", "at"), 12),
        (("apps", "my shop", "hooks", "a.b", "text"), 14),
        (("apps", "my shop", "hooks", "a.b", "after"), 21),
        (("apps", "shop", "rows"), 23),
        (("apps", "shop", "rows", 0, "more", "x"), 26),
        (("apps", "shop", "rows", 1, "id"), 28),
        (("apps", "shop", "rows", 1, "last", "a", "b"), 30),
        (("apps", "shop", "rows", 1, "last", "c", 1, 0), 30),
    ],
)
def test_key_has_its_line(path: Path, line: int) -> None:
    lines = key_lines(DOCUMENT)

    assert line == lines[path]


def test_every_key_is_found_and_no_other_when_a_document_uses_every_form() -> None:
    lines = key_lines(DOCUMENT)

    there = set(walk(tomllib.loads(DOCUMENT)))
    implied = {("apps",), ("apps", "my shop"), ("apps", "my shop", "hooks")}

    assert there - implied == set(lines)


def test_windows_line_ends_count_once() -> None:
    lines = key_lines('a = 1\r\n\r\nb = """\r\nx\r\n"""\r\nc = 2\r\n')

    assert {("a",): 1, ("b",): 3, ("c",): 6} == lines


def test_line_of_a_missing_key_is_that_of_its_table() -> None:
    lines = key_lines("[apps.shop]\na = 1\n\n[apps.shop.hooks.x]\n")

    assert 4 == line_of(lines, ("apps", "shop", "hooks", "x", "stream_name"))
    assert 1 == line_of(lines, ("apps", "other"))


@given(st.lists(st.one_of(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.integers(0, 99)), min_size=1, max_size=5))
def test_path_is_restored_from_its_dotted_form(steps: list[str | int]) -> None:
    path: Path = ("root", *steps)

    assert path == path_from_dotted(dotted(path))


def test_path_ends_where_a_service_does_not_name_the_key() -> None:
    assert ("attributes",) == path_from_dotted("attributes[...].x")


KEY = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.text("a.# []=\"'\\\n", min_size=1, max_size=6))
VALUE = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text("ab#[]{}=,\"'\\\n", max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEY, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(KEY, VALUE, max_size=4), st.booleans())
def test_every_key_is_found_whatever_it_is_made_of(document: dict[str, Any], spread: bool) -> None:
    text = "".join(f"{quoted(key)} = {written(value, spread)}\n" for key, value in document.items())

    assert document == tomllib.loads(text)
    assert set(walk(document)) == set(key_lines(text))


def walk(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of everything inside a value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in children:
        yield (*path, step)
        yield from walk(child, (*path, step))


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def written(value: Any, spread: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"""\n' + value.replace("\\", "\\\\").replace('"', '\\"') + '"""' if spread else quoted(value)
    if isinstance(value, list):
        between = ", # ]\n" if spread else ", "
        return "[" + between.join(written(item, spread) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(item, False)}" for key, item in value.items()) + "}"
    return str(value)
