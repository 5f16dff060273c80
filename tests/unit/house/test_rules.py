"""
Rules on imports and calls that neither import-linter nor ruff can state.

ruff's TID251 is all or nothing for a file; the files that it lets off in the root pyproject.toml are held to the part
that they need here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SOURCES = sorted(
    path for pattern in ("shared/src", "services/*/src", "cli/src") for path in REPOSITORY.glob(f"{pattern}/*/**/*.py")
)

NAMES_OF_NOTHING = {"utils", "helpers", "common", "base", "core", "manager", "misc", "types"}


def uses(path: Path, *names: str) -> bool:
    """Return whether the file contains one of the dotted names, or imports it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in names:
            return True
        if isinstance(node, ast.ImportFrom) and any(f"{node.module}.{alias.name}" in names for alias in node.names):
            return True
    return False


def imports(path: Path) -> Iterator[str]:
    """The modules that the file imports, with the names it takes from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users(*names: str) -> set[str]:
    """The source files that say one of the dotted names."""
    return {str(path.relative_to(REPOSITORY)) for path in SOURCES if uses(path, *names)}


def test_sources_are_found() -> None:
    assert REPOSITORY / "shared/src/shared/errors.py" in SOURCES


def test_environment_is_read_only_in_settings() -> None:
    assert {"shared/src/shared/runtime/settings.py"} == users("os.environ", "os.getenv", "os.environb", "os.putenv")


def test_event_loop_is_started_only_by_the_runtime_and_the_command_line() -> None:
    found = {path for path in users("asyncio.run", "asyncio.Runner") if not path.startswith("cli/")}

    assert found <= {"shared/src/shared/service.py"}


def test_aiohttp_server_is_used_only_at_the_edge() -> None:
    edge = {"app.py", "routes.py", "service.py"}

    found = {
        str(path.relative_to(REPOSITORY))
        for path in SOURCES
        if path.name not in edge
        and path.parent.name not in {"routes", "http"}
        and any(name.startswith("aiohttp.web") for name in imports(path))
    }
    assert set() == found


def test_bodies_of_requests_are_read_in_one_place() -> None:
    """`shared.http.bodies` counts and unpacks them."""
    reads = {f"{of}.{name}" for of in ("request", "call.request") for name in ("read", "content", "json", "multipart")}

    assert {"shared/src/shared/http/bodies.py"} == {
        path for path in users(*reads) if "/routes" in path or "/http/" in path
    } - {"shared/src/shared/http/server.py"}


@pytest.mark.parametrize("banned", sorted(NAMES_OF_NOTHING))
def test_no_file_has_a_name_that_says_nothing(banned: str) -> None:
    assert [] == [path for path in SOURCES if path.stem == banned]
