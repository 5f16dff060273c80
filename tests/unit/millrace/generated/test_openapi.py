"""The files under docs/openapi against the documents of the services."""

from pathlib import Path

import pytest

from millrace.generated import openapi

DOCUMENTS = {openapi.FOLDER / "hooks.json": '{"a": 1}\n', openapi.FOLDER / "storage.json": '{"b": 2}\n'}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose services have `DOCUMENTS`."""
    monkeypatch.setattr(openapi, "current_documents", lambda root: dict(DOCUMENTS))
    return tmp_path


def test_every_file_is_stale_when_none_is_there(root: Path) -> None:
    assert sorted(DOCUMENTS) == openapi.stale_documents(root)


def test_no_file_is_stale_when_written(root: Path) -> None:
    openapi.write_documents(root)

    assert [] == openapi.stale_documents(root)
    assert '{"a": 1}\n' == (root / openapi.FOLDER / "hooks.json").read_text()


def test_file_is_stale_when_it_differs_from_the_document_of_its_service(root: Path) -> None:
    openapi.write_documents(root)
    (root / openapi.FOLDER / "hooks.json").write_text("{}\n")

    assert [openapi.FOLDER / "hooks.json"] == openapi.stale_documents(root)


def test_file_without_a_service_is_stale_and_deleted(root: Path) -> None:
    openapi.write_documents(root)
    left_over = root / openapi.FOLDER / "gone.json"
    left_over.write_text("{}\n")

    stale = openapi.stale_documents(root)
    openapi.write_documents(root)

    assert [openapi.FOLDER / "gone.json"] == stale
    assert not left_over.exists()
