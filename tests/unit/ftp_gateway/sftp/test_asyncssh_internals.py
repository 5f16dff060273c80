import ast
import sys
from pathlib import Path
from subprocess import run

import asyncssh
import pytest
from asyncssh.constants import FXP_CLOSE
from asyncssh.sftp import SFTPServerHandler

from ftp_gateway.sftp import authentication, listener, packets
from ftp_gateway.sftp.asyncssh_internals import ATTRIBUTES, FIELDS, check_internals
from shared.errors import UnavailableError

NAMES = [(owner, name) for owner, names in ATTRIBUTES for name in names]
LISTED = {name for _, names in (*ATTRIBUTES, *FIELDS) for name in names}


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=lambda value: value if isinstance(value, str) else "")
def test_an_asyncssh_without_a_name_is_reported_by_release_and_name(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_internals()
    monkeypatch.delattr(owner, name)

    with pytest.raises(UnavailableError) as raised:
        check_internals()

    assert f"asyncssh {asyncssh.__version__} has moved" in raised.value.message
    assert f"{owner.__name__}.{name}" in raised.value.message


def test_an_asyncssh_without_a_field_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTPServerHandler, "__init__", lambda self: None)

    with pytest.raises(UnavailableError, match=r"SFTPServerHandler\._file_handles"):
        check_internals()


def test_an_asyncssh_that_handles_a_packet_elsewhere_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {kind: handler for kind, handler in SFTPServerHandler._packet_handlers.items() if kind != FXP_CLOSE}
    monkeypatch.setattr(SFTPServerHandler, "_packet_handlers", table)

    with pytest.raises(UnavailableError, match=rf"SFTPServerHandler\._packet_handlers\[{FXP_CLOSE}\]"):
        check_internals()


def test_a_missing_name_fails_the_check_and_not_an_import() -> None:
    lines = (
        "from asyncssh.connection import SSHConnection",
        "from asyncssh.sftp import SFTPServerHandler",
        "del SFTPServerHandler._process_open, SSHConnection._packet_handlers",
        "import ftp_gateway.sftp.server",
        "from ftp_gateway.sftp.asyncssh_internals import check_internals",
        "check_internals()",
    )
    done = run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)

    said = done.stderr.splitlines()[-1]
    assert f"asyncssh {asyncssh.__version__} has moved" in said
    assert "SFTPServerHandler._process_open" in said


@pytest.mark.parametrize("module", [packets, listener, authentication])
def test_every_private_name_of_asyncssh_is_listed(module: object) -> None:
    """A private attribute that the module neither defines nor sets belongs to asyncssh."""
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text())
    used = {node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_private(node.attr)}
    own = {node.attr for node in used if isinstance(node.ctx, ast.Store)} - LISTED
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    assert {node.attr for node in used} - own <= LISTED


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
