"""Schemas grow by nullable fields alone."""

from typing import Any

import pytest

from exporter.formats.avro import schema_of
from exporter.layouts.currents.schemas import growth_faults, newest_schema, schemas, table_of

OLDER: dict[str, Any] = {
    "type": "record",
    "namespace": "n",
    "name": "r",
    "fields": [{"name": "id", "type": "string"}, {"name": "a", "type": ["null", "string"], "default": None}],
}
ADDED = {"name": "b", "type": ["null", "long"], "default": None}


def changed(*fields: dict[str, Any], **values: Any) -> dict[str, Any]:
    return OLDER | {"fields": [*fields]} | values


@pytest.mark.parametrize("name", schemas())
def test_numbers_follow_each_other_and_each_grows_from_the_one_before(name: str) -> None:
    numbered = schemas()[name]

    assert list(range(1, len(numbered) + 1)) == sorted(numbered)
    assert [] == [
        fault for number in list(numbered)[1:] for fault in growth_faults(numbered[number - 1], numbered[number])
    ]
    assert max(numbered) == newest_schema(name)[0]


@pytest.mark.parametrize("name", schemas())
def test_schema_of_a_file_is_that_of_its_table(name: str) -> None:
    for schema in schemas()[name].values():
        assert schema == schema_of(table_of(schema))
        assert name == f"{schema['namespace']}.{schema['name']}"


@pytest.mark.parametrize("name", schemas())
def test_plain_fields_are_the_same_in_every_schema(name: str) -> None:
    _, table = newest_schema(name)

    assert ["id", "user_id", "app_id", "name", "time"] == [one.name for one in table.columns if not one.nullable]
    assert "int" == table.columns[4].type
    assert ["external_user_id", "occurred_at"] == table.header[5:7]
    assert ["properties", "user_properties"] == table.header[-2:]


def test_nullable_field_may_be_added_anywhere() -> None:
    assert [] == growth_faults(OLDER, changed(ADDED, *OLDER["fields"]))


@pytest.mark.parametrize(
    ("newer", "fault"),
    [
        (changed(OLDER["fields"][0]), "the field a is gone"),
        (changed(*reversed(OLDER["fields"])), "fields are in another order"),
        (changed(*OLDER["fields"], {"name": "b", "type": "string"}), "b is not nullable"),
        (changed(*OLDER["fields"], {"name": "b", "type": ["null", "string"]}), "b is not nullable"),
        (changed({"name": "id", "type": "long"}, OLDER["fields"][1]), "the field id has another type"),
        (changed(*OLDER["fields"], name="s"), "name was 'r' and is 's'"),
    ],
)
def test_any_other_change_is_a_fault(newer: dict[str, Any], fault: str) -> None:
    (found,) = growth_faults(OLDER, newer)

    assert fault in found
