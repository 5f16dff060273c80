"""
Schemas of exported events: `schemas/<name>/<number>.avsc`. The highest number holds for new windows.

Readers rely on them, so a new number may only add fields that are nullable, with null as default. `growth_faults` tells
what else changed; `./millrace check` runs it.
"""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec

from exporter.pipeline.tables import Column, Table

SUFFIX: Final = ".avsc"


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


def growth_faults(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """What a newer schema changes beyond nullable fields that it adds. Empty when readers of the older one can read."""
    faults = [
        f"{key} was {older.get(key)!r} and is {newer.get(key)!r}"
        for key in ("type", "namespace", "name")
        if older.get(key) != newer.get(key)
    ]
    before, after = ({field["name"]: field for field in schema["fields"]} for schema in (older, newer))
    for name, field in before.items():
        now = after.get(name)
        if now is None:
            faults.append(f"the field {name} is gone")
        elif (field["type"], field.get("default")) != (now["type"], now.get("default")):
            faults.append(f"the field {name} has another type or default")
    if [name for name in before if name in after] != [name for name in after if name in before]:
        faults.append("fields are in another order")
    for name, field in after.items():
        is_nullable = isinstance(field["type"], list) and field["type"][0] == "null"
        if name not in before and not (is_nullable and field.get("default", "") is None):
            faults.append(f"the new field {name} is not nullable with null as default")
    return faults


def _read(file: Traversable) -> dict[str, Any]:
    return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])


def _column(field: dict[str, Any]) -> Column:
    kind = field["type"]
    nullable = isinstance(kind, list)
    return Column(field["name"], kind[1] if nullable else kind, nullable, field.get("doc", ""))
