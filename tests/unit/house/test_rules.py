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

    assert found <= {"shared/src/shared/process.py"}


def test_aiohttp_server_is_used_only_at_the_edge() -> None:
    edge = {"app.py", "routes.py"}

    found = {
        str(path.relative_to(REPOSITORY))
        for path in SOURCES
        if path.name not in edge
        and path.parent.name not in {"routes", "http"}
        and any(name.startswith("aiohttp.web") for name in imports(path))
    }
    assert set() == found


def test_bodies_of_requests_are_read_in_one_place() -> None:
    """`shared.http.bodies` counts and unpacks them. Two others ask whether one is at its end."""
    ask_for_end = {f"shared/src/shared/http/{name}.py" for name in ("server", "web_server")}
    reads = {f"{of}.{name}" for of in ("request", "call.request") for name in ("read", "content", "json", "multipart")}

    assert {"shared/src/shared/http/bodies.py"} == {
        path for path in users(*reads) if "/routes" in path or "/http/" in path
    } - ask_for_end


@pytest.mark.parametrize("banned", sorted(NAMES_OF_NOTHING))
def test_no_file_has_a_name_that_says_nothing(banned: str) -> None:
    assert [] == [path for path in SOURCES if path.stem == banned]


CONNECTING = {
    "ClientSession",
    "TCPConnector",
    "create_connection",
    "create_default_context",
    "getaddrinfo",
    "open_connection",
    "sock_connect",
}
"""Names by which a connection, or the trust in one, is made."""


def test_outgoing_connections_are_made_in_one_package() -> None:
    """Beside it: what reaches the mesh itself, and TLS whose authorities a remote names."""
    excepted = ("cli/", "shared/src/shared/messaging/", "shared/src/shared/outgoing/")
    makers = {
        str(path.relative_to(REPOSITORY))
        for path in SOURCES
        if any(
            isinstance(node, ast.Attribute) and node.attr in CONNECTING
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    remotes = "services/ftp-gateway/src/ftp_gateway/remotes/clients"

    assert {
        f"{remotes}/ftplib_client.py",
        "services/hooks/src/hooks/sinks/webhook/checks.py",
    } == {path for path in makers if not path.startswith(excepted)}


def test_connections_of_other_libraries_begin_with_a_socket_of_ours() -> None:
    """asyncssh and asyncio would resolve the name again, and connect to what they find."""
    connecting = ("asyncssh.connect", "asyncssh.get_server_host_key", ".create_connection", ".open_connection")
    calls = [
        (path.name, ast.unparse(node.func), {keyword.arg for keyword in node.keywords})
        for path in SOURCES
        if not str(path.relative_to(REPOSITORY)).startswith("cli/")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(connecting)
    ]

    assert {"sftp.py", "checks.py", "tcp_client.py"} == {name for name, _, _ in calls}
    assert [] == [call for call in calls if "sock" not in call[2]]


def test_environment_of_other_programs_is_read_by_no_client() -> None:
    """`trust_env` would let aiohttp read proxies and passwords that the settings do not know."""
    assert [] == [path for path in SOURCES if "trust_env" in path.read_text()]
