"""requirements.lock: its creation, and the check for a stale one. uv is a fake, so no registry is queried."""

from pathlib import Path

import pytest

from millrace.generated import lock
from millrace.machine.checkout import LOCK
from shared.errors import UnavailableError

FAKE_UV = """\
#!/bin/sh
printf '%s\\n' "$*" >>calls
case " $* " in *" --offline "*) [ -z "{cold}" ] || {{ echo "not in the cache" >&2; exit 2; }} ;; esac
while [ "$1" != "--output-file" ]; do shift; done
cat compiled >"$2"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose lock is current."""
    monkeypatch.setattr(lock, "tool", lambda name: str(tmp_path / name))
    (tmp_path / LOCK).write_text("a==1\nb==2\n")
    (tmp_path / "compiled").write_text("a==1\nb==2\n")
    uv(tmp_path)
    return tmp_path


def uv(root: Path, cold: str = "") -> None:
    """Install the fake; with a `cold` cache it can do nothing offline."""
    (root / "uv").write_text(FAKE_UV.format(cold=cold))
    (root / "uv").chmod(0o755)


def test_lock_is_current_when_compiling_changes_nothing(root: Path) -> None:
    assert [] == lock.stale_pins(root)
    assert 1 == len((root / "calls").read_text().splitlines())


def test_lock_is_stale_when_compiling_changes_a_pin(root: Path) -> None:
    (root / "compiled").write_text("a==1\nb==3\n")

    assert ["- b==2", "+ b==3"] == lock.stale_pins(root)
    assert "a==1\nb==2\n" == (root / LOCK).read_text()


def test_registry_is_queried_when_the_cache_has_no_answer(root: Path) -> None:
    uv(root, cold="yes")

    assert [] == lock.stale_pins(root)
    assert [True, False] == ["--offline" in call for call in (root / "calls").read_text().splitlines()]


def test_failure_contains_the_output_of_uv(root: Path) -> None:
    uv(root, cold="yes")

    with pytest.raises(UnavailableError, match="not in the cache"):
        lock.compile_lock(root, root / "new.lock", offline=True)


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [(None, []), ([], ["--upgrade"]), (["aiohttp"], ["--upgrade-package=aiohttp"])],
)
def test_pins_move_only_on_request(root: Path, upgrade: list[str] | None, expected: list[str]) -> None:
    lock.compile_lock(root, root / "new.lock", upgrade=upgrade)

    assert expected == [word for word in (root / "calls").read_text().split() if word.startswith("--upgrade")]


def test_lock_in_the_repository_names_hashes_and_no_registry() -> None:
    text = (Path(__file__).parents[4] / LOCK).read_text()

    packages = text.count("\n    --hash=sha256:")
    assert packages > 100
    assert "://" not in text
    assert "index-url" not in text
    assert "millrace" not in text
