from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.model.outcome import RowError
from ftp_gateway.model.rules import AttributeType
from ftp_gateway.parsing.profile_txt import ProfileReader
from ftp_gateway.parsing.text import FileScan, RefusedError
from shared.contracts.messages import ProfileRow, decode, make_profile_attributes

DEMO = Path(__file__).parents[4] / "demo" / "profile.txt"
DECLARED: dict[str, AttributeType] = {"city": "string", "age": "number"}


def read(
    data: bytes, declared: dict[str, AttributeType] | None = None, block: int = 4096
) -> tuple[list[ProfileRow | RowError], ProfileReader]:
    scan = FileScan("shop", "profile")
    scan.feed(data)
    reader = ProfileReader(scan.result(None), declared or {}, ZoneInfo("Europe/Istanbul"))
    parsed = [reader.feed(data[at : at + block]) for at in range(0, len(data), block)]
    parsed.append(reader.finish())
    rows: list[ProfileRow | RowError] = []
    for part in parsed:
        made = [decode(data, ProfileRow) for data in part.rows]
        assert [(row.line, row.ext_id.encode()) for row in made] == list(zip(part.lines, part.ext_ids, strict=True))
        rows += [*made, *part.errors]
    return sorted(rows, key=lambda row: row.line), reader


def row(line: str, pattern: str = "~~~city~age") -> ProfileRow | str:
    """The row, or the code of its error."""
    [found] = read(f"{pattern}\n{line}\n".encode())[0]
    return found if isinstance(found, ProfileRow) else found.code


def refusal(data: bytes, declared: dict[str, AttributeType] | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        read(data, declared)
    return refused.value


def test_the_sample_is_read_as_the_product_says() -> None:
    rows, _ = read(DEMO.read_bytes(), DECLARED)

    assert [
        (2, "12345", "ayse@example.com", "token123", make_profile_attributes({"city": "İzmir", "age": 25})),
        (3, "67890", "user@example.com", None, make_profile_attributes({"city": "more ~ data", "age": 30})),
        (4, "54321", None, None, make_profile_attributes({"city": "Ankara"})),
    ] == [
        (row.line, row.ext_id, row.email, row.device_token, row.attributes)
        for row in rows
        if isinstance(row, ProfileRow)
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        "~~~city~age",
        "extID~email~device token~city~age",
        "~~~extID~email~device token~city~age",
        "EXTID~Email~DeviceToken~city~age",
        "ext_id ~ email ~ device_token ~ city ~ age",
    ],
)
def test_both_forms_of_the_pattern_line_mean_the_same(pattern: str) -> None:
    found = row('12345~~token123~"example data"~25', pattern)

    assert isinstance(found, ProfileRow)
    assert ("12345", None, "token123") == (found.ext_id, found.email, found.device_token)
    assert make_profile_attributes({"city": "example data", "age": 25}) == found.attributes


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('1~~~""~', {"city": ""}),
        ("1~~~~", {}),
        ('1~~~"a~b"~1', {"city": "a~b", "age": 1}),
        ('1~~~"say "hi" now"~1', {"city": 'say "hi" now', "age": 1}),
        ('1~~~ "Ankara" ~ 25 ', {"city": "Ankara", "age": 25}),
        ('1~~~["a~b","c"]~1', {"city": ["a~b", "c"], "age": 1}),
        ('1~~~"~"~"~~"', {"city": "~", "age": "~~"}),
    ],
)
def test_quotes_hold_tildes_and_empty_means_unchanged(line: str, expected: dict[str, object]) -> None:
    found = row(line)

    assert isinstance(found, ProfileRow)
    assert make_profile_attributes(expected) == found.attributes


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("1~~~a", "columns"),
        ("1~~~1~2~3", "columns"),
        ("1", "columns"),
        ("~~~1~2", "ext_id_missing"),
        ('""~~~1~2', "ext_id_missing"),
        ("x" * 300 + "~~~1~2", "ext_id_too_long"),
        ("1~nobody~~1~2", "email"),
        ("1~@~~1~2", "email"),
        ('1~~~"never closed~2', "quotes"),
        ("1~~~[1, 2~2", "quotes"),
        ("1~~~bare words~2", "value"),
        ("1~~~" + "x" * 70_000 + "~2", "line_too_long"),
        ("1~~~" + '"' * 60_000 + "x~2", "quotes"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(line: str, code: str) -> None:
    assert row(line) == code


def test_a_value_of_the_wrong_type_names_its_attribute() -> None:
    rows, _ = read(b'~~~city~age\n1~~~"Ankara"~"old"\n', DECLARED)

    [found] = rows
    assert isinstance(found, RowError)
    assert ("value", True) == (found.code, found.message.startswith("age:"))


@pytest.mark.parametrize(
    "data",
    [
        b"city~age\n",
        b"extID~city~age\n",
        b"~~city\n",
        b"12345~~~x\n",
        b"~~~city~\n",
        b"~~~city~city\n",
    ],
)
def test_a_pattern_line_that_is_none_refuses_the_file(data: bytes) -> None:
    assert refusal(data + b"1~~~1\n").reason == "pattern"


def test_an_attribute_that_the_app_does_not_declare_refuses_the_file_before_row_1() -> None:
    refused = refusal(b"~~~city~shoes\n1~~~1~2\n", DECLARED)

    assert ("unknown_attribute", 1, True) == (refused.reason, refused.line, "'shoes'" in refused.message)


def test_a_file_of_addresses_alone_has_no_attributes() -> None:
    for pattern in (b"~~~\n", b"extID~email~device token\n"):
        [found], _ = read(pattern + b"1~user@example.com~token\n")
        assert isinstance(found, ProfileRow)
        assert ("user@example.com", "token", {}) == (found.email, found.device_token, found.attributes)


@pytest.mark.parametrize(
    ("tail", "cut_off"), [(b"2~~~1~2\n", False), (b"2~~~1~2", False), (b'2~~~"A', True), (b"2~~", True)]
)
def test_a_cut_off_file_differs_from_one_without_a_last_line_end(tail: bytes, cut_off: bool) -> None:
    _, reader = read(b"~~~city~age\n1~~~1~2\n" + tail)

    assert cut_off == reader.cut_off


text = st.text(st.characters(exclude_characters='\n\r"\0', exclude_categories=["Cs"]), max_size=20)


@given(st.lists(text, min_size=1, max_size=20), st.integers(1, 80))
def test_any_quoted_string_comes_through(values: list[str], block: int) -> None:
    data = "~~~city\n" + "".join(f'{number + 1}~~~"{value}"\n' for number, value in enumerate(values))

    rows, _ = read(data.encode(), block=block)

    assert [make_profile_attributes({"city": value}) for value in values] == [
        row.attributes for row in rows if isinstance(row, ProfileRow)
    ]


@given(st.binary(max_size=500), st.integers(1, 60))
def test_any_bytes_are_read_or_refused(data: bytes, block: int) -> None:
    try:
        rows, _ = read(b"~~~city~age\n" + data, block=block)
    except RefusedError:
        return

    assert len(rows) <= data.count(b"\n") + 1
