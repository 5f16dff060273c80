"""Schemas of exported events grow by nullable fields alone, and a committed one stays as it is."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millrace.generated.event_schemas import faults_of_schemas, growth_faults
from millrace.machine.checkout import repository

FOLDER = "services/exporter/src/exporter/schemas/n.r"
OLDER: dict[str, Any] = {
    "type": "record",
    "namespace": "n",
    "name": "r",
    "fields": [{"name": "id", "type": "string"}, {"name": "a", "type": ["null", "string"], "default": None}],
}
ADDED = {"name": "b", "type": ["null", "long"], "default": None}


def changed(*fields: dict[str, Any], **values: Any) -> dict[str, Any]:
    return OLDER | {"fields": [*fields]} | values


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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one committed schema."""
    (tmp_path / FOLDER).mkdir(parents=True)
    write(tmp_path, 1, OLDER)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def write(root: Path, number: int, schema: dict[str, Any]) -> None:
    (root / FOLDER / f"{number}.avsc").write_bytes(msgspec.json.encode(schema))


def test_schemas_of_this_repository_have_no_fault() -> None:
    assert [] == faults_of_schemas(repository())


def test_next_number_that_grows_is_good(checkout: Path) -> None:
    write(checkout, 2, changed(*OLDER["fields"], ADDED))

    assert [] == faults_of_schemas(checkout)


def test_changed_schema_that_is_committed_is_named(checkout: Path) -> None:
    write(checkout, 1, changed(*OLDER["fields"], ADDED))

    assert [f"{FOLDER}/1.avsc: it is committed, so it stays as it is; write the next number"] == faults_of_schemas(
        checkout
    )


def test_next_number_that_loses_a_field_is_named(checkout: Path) -> None:
    write(checkout, 2, changed(OLDER["fields"][0]))

    assert [f"{FOLDER}/2.avsc: the field a is gone"] == faults_of_schemas(checkout)


def test_number_without_the_one_before_is_named(checkout: Path) -> None:
    write(checkout, 3, OLDER)

    assert [f"{FOLDER}/3.avsc: there is no 2.avsc"] == faults_of_schemas(checkout)
