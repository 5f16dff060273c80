"""A copy of the sources that a test may change, and the environment in which Python imports it. No test lives here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


class CheckoutCopy:
    """The sources, pyproject.toml and compose.yaml under `root`. The tests and the documents stay behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__")
        for folder in ("shared", "services", "cli"):
            shutil.copytree(REPOSITORY / folder, root / folder, ignore=ignored)
        for file in ("pyproject.toml", "compose.yaml", "millrace"):
            shutil.copy(REPOSITORY / file, root / file)

    def path(self, module: str) -> Path:
        """The file of a module, such as `hooks.matching.rule`; the module exists."""
        inner = Path(*module.split(".")).with_suffix(".py")
        (found,) = (
            self.root.glob(f"*/src/{inner}")
            if module.startswith(("shared.", "millrace."))
            else self.root.glob(f"services/*/src/{inner}")
        )
        return found

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file."""
        path = self.root / file
        text = path.read_text()
        assert 1 == text.count(old), f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def environment(self) -> dict[str, str]:
        """The variables with which a process imports this copy; the installed packages are the repository's."""
        roots = (self.root / "shared" / "src", self.root / "cli" / "src", *self.root.glob("services/*/src"))
        return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(map(str, roots))}

    def lint_imports(self) -> tuple[int, str]:
        """Run `lint-imports` on the copy. Returns its exit code and its output."""
        command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
        done = subprocess.run(command, cwd=self.root, env=self.environment(), capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
