"""Location of the repository, for the verbs that work on it. The verbs that operate a mesh do not need this file."""

import sys
from pathlib import Path

from shared.errors import NotFoundError

SCRIPT = "millrace"
LOCK = "requirements.lock"


def repository() -> Path:
    """
    The root of the checkout from which this package runs.

    Raises:
        NotFoundError: The package is installed elsewhere than in a checkout.
    """
    root = Path(__file__).resolve().parents[4]
    if not (root / SCRIPT).is_file() or not (root / "cli" / "pyproject.toml").is_file():
        raise NotFoundError("this verb works on a checkout of the repository; run ./millrace there")
    return root


def services(root: Path) -> list[str]:
    """The names of the services, such as `ftp-gateway`."""
    return sorted(project.parent.name for project in root.glob("services/*/pyproject.toml"))


def tool(name: str) -> str:
    """The path of a program that requirements.lock brought; never a namesake that is on PATH."""
    return str(Path(sys.executable).parent / name)
