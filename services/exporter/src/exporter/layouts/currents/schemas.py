"""
Schemas of exported events: `schemas/<name>/<number>.avsc`. The highest number holds for new windows.

Readers rely on them, so a new number may only add fields that are nullable, with null as default. `./millrace check`
refuses anything else.
"""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec

from exporter.pipeline.tables import Column, Table

SUFFIX: Final = ".avsc"
JSON_FIELDS: Final = frozenset({"properties", "user_properties"})
"""Fields whose strings are JSON."""


@cache
def newest_schema(name: str) -> tuple[int, Table]:
    """The number and the table of a schema."""
    numbered = schemas()[name]
    number = max(numbered)
    return number, table_of(numbered[number])


@cache
def schemas() -> dict[str, dict[int, dict[str, Any]]]:
    """Every schema by name and number."""
    return {
        folder.name: {int(file.name.removesuffix(SUFFIX)): _read(file) for file in folder.iterdir()}
        for folder in files("exporter.layouts.currents").joinpath("schemas").iterdir()
    }


def table_of(schema: dict[str, Any]) -> Table:
    """The table of a schema."""
    name = f"{schema['namespace']}.{schema['name']}"
    return Table(name, tuple(_column(field) for field in schema["fields"]), schema["doc"])


def _read(file: Traversable) -> dict[str, Any]:
    return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])


def _column(field: dict[str, Any]) -> Column:
    kind = field["type"]
    nullable = isinstance(kind, list)
    name = field["name"]
    return Column(
        name, "json" if name in JSON_FIELDS else kind[1] if nullable else kind, nullable, field.get("doc", "")
    )
