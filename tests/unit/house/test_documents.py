"""Documents: every file that one of them names is there."""

import re
from pathlib import Path

import pytest

from shared.contracts.services import SERVICE_NAMES
from shared.contracts.subjects import RESOLVE_MEDIA, STORE_MEDIA, connector_test

REPOSITORY = Path(__file__).parents[3]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(REPOSITORY.glob("services/*/README.md")),
    *sorted(REPOSITORY.glob("docs/adr/*.md")),
]

LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
PATH = re.compile(r"`((?:shared|services|cli|tests|bench|docs|demo)/[\w./-]+)`")
"""A path in backquotes, from the root of the repository or of `shared/src`. Patterns with braces or `<…>` are left."""
PACKAGES = {
    "shared": "shared/src/shared",
    "millrace": "cli/src/millrace",
    **{path.name: str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("services/*/src/*") if path.is_dir()},
}
MODULE = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.[a-z_]+)+)`")
SUBJECTS = {STORE_MEDIA, RESOLVE_MEDIA, *map(connector_test, SERVICE_NAMES)}
"""Dotted names that are no modules."""


def missing(text: str, folder: Path) -> list[str]:
    """The links, paths and modules of a document that lead to nothing."""
    lost = [link for link in LINK.findall(text) if not (folder / link).exists()]
    for path in PATH.findall(text):
        if not (REPOSITORY / path).exists() and not (REPOSITORY / "shared/src" / path).exists():
            lost.append(path)
    for dotted in set(MODULE.findall(text)) - SUBJECTS:
        package, *parts = dotted.split(".")
        found = REPOSITORY / PACKAGES[package]
        # The last part may be a name in the module.
        if not any(
            (found / "/".join(parts[:n])).with_suffix(s).exists()
            for n in (len(parts), len(parts) - 1)
            if n
            for s in ("", ".py")
        ):
            lost.append(dotted)
    return lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_document_names_only_what_is_there(document: Path) -> None:
    assert [] == missing(document.read_text(), document.parent)


def test_a_link_a_path_and_a_module_that_lead_nowhere_are_found() -> None:
    text = "[a](docs/none.md) `shared/none.py` `shared.messaging.none.pull` `hooks.events.admission` [b](README.md)"

    assert ["docs/none.md", "shared/none.py", "shared.messaging.none.pull"] == missing(text, REPOSITORY)
