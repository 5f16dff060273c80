"""Every schema is read as the table of its type."""

import pytest

from exporter.formats.avro import schema_of
from exporter.layouts.currents.schemas import newest_schema, schemas, table_of


@pytest.mark.parametrize("name", schemas())
def test_numbers_follow_each_other_and_the_highest_counts(name: str) -> None:
    numbered = schemas()[name]

    assert list(range(1, len(numbered) + 1)) == sorted(numbered)
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
