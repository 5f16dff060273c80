"""
The files docs/openapi/<service>.json: made by each service from its route table, compared or written here.

A service prints its own document (`python -m <service> --openapi`), because the command line imports no service.
"""

import json
import subprocess
import sys
from pathlib import Path

from millrace.machine.checkout import services
from shared.errors import UnavailableError

FOLDER = Path("docs/openapi")


def current_documents(root: Path) -> dict[Path, str]:
    """
    Current content of every file under docs/openapi, by its path from the root.

    Raises:
        UnavailableError: A service could not print its document.
    """
    names = services(root)
    # All at once: each is a Python start of its own, most of which is importing.
    running = [
        subprocess.Popen(
            [sys.executable, "-m", name.replace("-", "_"), "--openapi"],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    printed = [process.communicate() for process in running]
    documents: dict[Path, str] = {}
    for name, process, (stdout, stderr) in zip(names, running, printed, strict=True):
        try:
            document = json.loads(stdout) if process.returncode == 0 else None
        except json.JSONDecodeError:
            document = None
        if document is None:
            raise UnavailableError(f"{name} did not print its OpenAPI document:\n{(stderr or stdout).strip()}")
        documents[FOLDER / f"{name}.json"] = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return documents


def stale_documents(root: Path) -> list[Path]:
    """The files that are missing, differ from what their service says, or belong to no service."""
    documents = current_documents(root)
    present = {path.relative_to(root): path.read_text() for path in (root / FOLDER).glob("*.json")}
    return sorted(path for path in documents.keys() | present.keys() if documents.get(path) != present.get(path))


def write_documents(root: Path) -> None:
    """Make every file current, and remove those of no service."""
    documents = current_documents(root)
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    for path in (root / FOLDER).glob("*.json"):
        if path.relative_to(root) not in documents:
            path.unlink()
    for path, text in documents.items():
        (root / path).write_text(text)
