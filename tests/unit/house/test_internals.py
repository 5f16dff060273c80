"""Private names of libraries are used in one file per library, which checks them at start."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SHARED = sorted((REPOSITORY / "shared/src/shared").rglob("*.py"))
OURS = {"self", "cls", "other"}
ALLOWED = {"os._exit"}
"""A documented function, in spite of its name."""


def private_names(source: str) -> set[str]:
    """Attributes with a private name of what is not the object itself."""
    found = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in OURS)
    }
    return found - ALLOWED


def test_private_names_are_used_in_the_files_that_check_them() -> None:
    users = {path.name for path in SHARED if private_names(path.read_text())}

    assert {"internals.py", "sdk_internals.py"} == users


@pytest.mark.parametrize("planted", ["client._ps = parser", "await self._bus.client._send_command(b'')"])
def test_rule_finds_a_planted_line(planted: str) -> None:
    assert private_names(f"async def use(self, client, parser):\n    {planted}\n")
