"""
The rule of the schemas of exported events, `schemas/<name>/<number>.avsc` in a service: they only grow.

Readers rely on them. A committed schema stays as it is, and the next number may only add fields that are nullable, with
null as default.
"""

import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec

PATTERN: Final = "services/*/src/**/schemas/*/*.avsc"

Schema = dict[str, Any]


def faults_of_schemas(root: Path) -> list[str]:
    """The faults of all schemas of a repository, each with the file's path."""
    faults: list[str] = []
    for path in sorted(root.glob(PATTERN)):
        name, schema = path.relative_to(root), path.read_bytes()
        committed = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=root, capture_output=True, check=False)
        if committed.returncode == 0 and committed.stdout != schema:
            faults.append(f"{name}: it is committed, so it stays as it is; write the next number")
        number = int(path.stem)
        before = path.with_stem(str(number - 1))
        if before.exists():
            faults += [f"{name}: {fault}" for fault in growth_faults(_read(before), _read(path))]
        elif number > 1:
            faults.append(f"{name}: there is no {before.name}")
    return faults


def growth_faults(older: Schema, newer: Schema) -> list[str]:
    """Changes of a newer schema but nullable fields that it adds. None when readers of the older one can read it."""
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


def _read(path: Path) -> Schema:
    return msgspec.json.decode(path.read_bytes(), type=Schema)
