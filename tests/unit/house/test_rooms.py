"""Sizes and names of the rooms: files of a package, names of classes, and citations."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
ROOTS = sorted(
    path.parent
    for pattern in ("shared/src/*", "services/*/src/*", "cli/src/*")
    for path in REPOSITORY.glob(f"{pattern}/__init__.py")
)
PACKAGES = sorted(path.parent for root in ROOTS for path in root.rglob("__init__.py"))
SOURCES = sorted(path for root in ROOTS for path in root.rglob("*.py"))

MOST_FILES = 13
SAME_NAME = {
    "State": "the state of a service, as `app.build` returns it; one in each service",
}
"""Names of classes that may stand in several files, with the reason."""


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def classes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node.name


def test_rooms_are_found() -> None:
    assert {"shared", "millrace", "storage", "hooks", "ftp_gateway", "exporter"} <= {root.name for root in ROOTS}


def test_package_has_at_most_thirteen_files() -> None:
    full = {shown(package): len(list(package.glob("*.py"))) - 1 for package in PACKAGES}

    assert {} == {package: files for package, files in full.items() if files > MOST_FILES}


def test_name_of_a_class_means_one_thing() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    helpers = [*REPOSITORY.glob("bench/**/*.py"), *REPOSITORY.glob("tests/support/**/*.py")]
    for path in (*SOURCES, *helpers):
        for name in classes(path):
            found[name].append(shown(path))

    assert {} == {name: files for name, files in found.items() if len(files) > 1 and name not in SAME_NAME}


def test_source_of_a_fact_is_one_that_a_reader_can_open() -> None:
    """The notes that a line once cited are not in the repository."""
    cited = [shown(path) for path in SOURCES if "reference: " in path.read_text()]

    assert [] == cited
