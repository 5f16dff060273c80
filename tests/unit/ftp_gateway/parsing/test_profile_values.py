import contextlib
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.model.rules import AttributeType
from ftp_gateway.parsing.profile_values import ValueProblem, parse_value

ISTANBUL = ZoneInfo("Europe/Istanbul")


@pytest.mark.parametrize(
    ("field", "declared", "expected"),
    [
        ('"Ankara"', "string", "Ankara"),
        ("Ankara", "string", "Ankara"),
        ("007", "string", "007"),
        ("25", "number", 25),
        ("-2.5", "number", -2.5),
        ("1e3", "number", 1000.0),
        ("TRUE", "boolean", True),
        ("false", "boolean", False),
        ("2026-11-22", "date", "2026-11-22"),
        ('"2026-11-22"', "date", "2026-11-22"),
        ("2026-11-22T10:30:00", "date", "2026-11-22T07:30:00Z"),
        ("2026-11-22 10:30", "date", "2026-11-22T07:30:00Z"),
        ("2026-11-22T10:30:00+01:00", "date", "2026-11-22T09:30:00Z"),
        ("1795343400000", "date", "2026-11-22T10:30:00Z"),
        ('["a", "b"]', "array", ["a", "b"]),
        ("[1, 2.5, true, null]", "array", [1, 2.5, True, None]),
        ('"Ankara"', None, "Ankara"),
        ('"25"', None, "25"),
        ("25", None, 25),
        ("true", None, True),
        ("2026-11-22", None, "2026-11-22"),
        ("[1]", None, [1]),
    ],
)
def test_a_value_has_the_declared_type_or_the_one_it_shows(
    field: str, declared: AttributeType | None, expected: object
) -> None:
    assert expected == parse_value(field, declared, ISTANBUL)


@pytest.mark.parametrize(
    ("field", "declared"),
    [
        ('"25"', "number"),
        ("12,5", "number"),
        ("nan", "number"),
        ("1e999", "number"),
        ("9223372036854775808", "number"),
        ("9" * 5000, "number"),
        ("٣", "number"),
        ("yes", "boolean"),
        ("22.11.2026", "date"),
        ("2026-13-01", "date"),
        ("999999999999999", "date"),
        ("a, b", "array"),
        ('[{"a": 1}]', "array"),
        ("[1e999]", "array"),
        ("[9223372036854775808]", "array"),
        ("[", "array"),
        ("bare", None),
        ("12,5", None),
    ],
)
def test_what_is_of_another_type_is_a_problem(field: str, declared: AttributeType | None) -> None:
    with pytest.raises(ValueProblem):
        parse_value(field, declared, ISTANBUL)


@given(st.text(min_size=1, max_size=40), st.sampled_from(["string", "number", "boolean", "date", "array", None]))
def test_any_field_is_a_value_or_a_problem(field: str, declared: AttributeType | None) -> None:
    with contextlib.suppress(ValueProblem):
        assert parse_value(field, declared, ISTANBUL) is not None
