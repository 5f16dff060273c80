"""Sizes and names of the rooms: entries of a root, files of a package, lines of a file, classes and docstrings."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.contracts.services import SERVICES as SERVICES_TABLE

REPOSITORY = Path(__file__).parents[3]
ROOTS = sorted(
    path.parent
    for pattern in ("shared/src/*", "services/*/src/*", "cli/src/*")
    for path in REPOSITORY.glob(f"{pattern}/__init__.py")
)
SERVICES = [root for root in ROOTS if root.parts[-4] == "services"]
PACKAGES = sorted(path.parent for root in ROOTS for path in root.rglob("__init__.py"))
SOURCES = sorted(path for root in ROOTS for path in root.rglob("*.py"))

SKELETON = {"__main__", "app", "state", "config", "routes", "handlers"}
"""The same in every service. Its root holds these and packages, and nothing else."""
MOST_PACKAGES = 10
MOST_FILES = 13
MOST_LINES = 330

REASON_FOR_LENGTH = "One file, because"
"""The words with which the docstring of a longer module gives its reason."""

SAME_NAME = {
    "State": "the state of a service, as `app.build` returns it; one in each service",
}
"""Names of classes that may stand in several files, with the reason."""

POOR_BEGINNINGS = ("What", "Who", "Whose")


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def entries(package: Path) -> set[str]:
    """The modules and packages in a folder, beside its `__init__.py`."""
    files = {path.stem for path in package.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in package.glob("*/__init__.py")}


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, and of every string that stands below an attribute or a constant."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def classes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node.name


def test_rooms_are_found() -> None:
    assert {"shared", "millrace", *(service.module for service in SERVICES_TABLE)} == {root.name for root in ROOTS}


@pytest.mark.parametrize("root", SERVICES, ids=lambda root: root.name)
def test_root_of_a_service_holds_the_skeleton_and_packages(root: Path) -> None:
    modules = {path.stem for path in root.glob("*.py")} - {"__init__"}
    packages = entries(root) - modules

    assert set() == modules - SKELETON, f"{shown(root)}: these belong into a package"
    assert SKELETON <= modules | packages, f"{shown(root)}: the skeleton is the same in every service"
    assert len(packages - SKELETON) <= MOST_PACKAGES


def test_package_has_at_most_thirteen_files() -> None:
    full = {shown(package): len(list(package.glob("*.py"))) - 1 for package in PACKAGES}

    assert {} == {package: files for package, files in full.items() if files > MOST_FILES}


def test_package_has_two_files_or_more() -> None:
    small = {shown(package) for package in PACKAGES if len(entries(package)) < 2}

    assert set() == small


def test_long_file_says_why_it_is_long() -> None:
    long = [path for path in SOURCES if len(path.read_text().splitlines()) > MOST_LINES]

    unexplained = [
        shown(path) for path in long if REASON_FOR_LENGTH not in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]
    assert [] == unexplained, f"over {MOST_LINES} lines; split it, or say {REASON_FOR_LENGTH!r} … in its docstring"


def test_name_of_a_class_means_one_thing() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    helpers = [*REPOSITORY.glob("bench/**/*.py"), *REPOSITORY.glob("tests/support/**/*.py")]
    for path in (*SOURCES, *helpers):
        for name in classes(path):
            found[name].append(shown(path))

    assert {} == {name: files for name, files in found.items() if len(files) > 1 and name not in SAME_NAME}


def test_docstring_begins_with_a_noun_or_a_verb() -> None:
    poor = [
        f"{shown(path)}:{line}: {text.splitlines()[0]}"
        for path in (*SOURCES, *sorted(REPOSITORY.glob("tests/**/*.py")))
        for line, text in docstrings(path)
        if text and text.split()[0].rstrip("'s,:") in POOR_BEGINNINGS
    ]

    assert [] == poor


def test_source_of_a_fact_is_one_that_a_reader_can_open() -> None:
    """The notes that a line once cited are not in the repository."""
    cited = [shown(path) for path in SOURCES if "reference: " in path.read_text()]

    assert [] == cited
