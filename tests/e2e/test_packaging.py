"""
Every service installs and imports in an environment of its own, by the instructions of the Dockerfile.

The instructions of the stage "build" are read from the Dockerfile and run here without Docker, so the two cannot drift.
A dependency that a room uses and does not declare is there in .venv, and missing here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SERVICES = sorted(project.parent.name for project in REPOSITORY.glob("services/*/pyproject.toml"))

PREFIX = "/opt/millrace"
"""The path of the environment in the image; a folder of the test replaces it."""


def instructions(stage: str) -> Iterator[tuple[str, str]]:
    """The instructions of one stage of the Dockerfile, as (word, rest), with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE))
    inside = False
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            inside = rest.endswith(f" AS {stage}")
        elif inside:
            yield word, rest


def shell(command: str, folder: Path, service: str) -> None:
    """
    Run a command as the Dockerfile would, first offline with the cache of uv.

    After the install of .venv the cache has everything, and a registry need not be reachable.
    """
    environment = {
        "HOME": str(Path.home()),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "SERVICE": service,
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        **{name: value for name, value in os.environ.items() if name in ("UV_CACHE_DIR", "SSL_CERT_FILE")},
    }
    for offline in ("1", "0"):
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=folder,
            env=environment | {"UV_OFFLINE": offline},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode == 0:
            return
    pytest.fail(f"the Dockerfile's `{command}` failed for {service}:\n{done.stdout}")


def build(service: str, folder: Path) -> Path:
    """Run the stage "build". Returns an environment with the service in it."""
    context, environment = folder / "context", folder / "environment"
    context.mkdir()
    # The stage begins with what the stage before it copied.
    shutil.copy(REPOSITORY / "requirements.lock", context)
    for word, rest in instructions("build"):
        if word == "COPY":
            source, target = (part.replace("${SERVICE}", service) for part in rest.split())
            shutil.copytree(REPOSITORY / source, context / target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif word == "RUN":
            shell(rest.replace(PREFIX, str(environment)), context, service)
        else:
            assert "ARG" == word
    return environment


@pytest.fixture(scope="module", params=SERVICES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    service: str = request.param
    return service, build(service, tmp_path_factory.mktemp(service))


@pytest.mark.timeout(300)
def test_service_imports_with_its_own_dependencies_alone(built: tuple[str, Path]) -> None:
    service, environment = built
    module = service.replace("-", "_")

    subprocess.run([environment / "bin" / "python", "-c", f"import {module}.app"], cwd=environment, check=True)

    listed = subprocess.run(
        [
            Path(sys.executable).parent / "uv",
            "pip",
            "list",
            "--python",
            environment / "bin" / "python",
            "--format=json",
        ],
        cwd=environment,
        capture_output=True,
        check=True,
    )
    names = {package["name"] for package in json.loads(listed.stdout)}
    assert {f"millrace-{service}", "millrace-shared"} == {name for name in names if name.startswith("millrace")}
    assert not names & {"moto", "pytest", "ruff"}


@pytest.mark.timeout(300)
def test_service_is_copied_and_not_linked_to_the_sources(built: tuple[str, Path]) -> None:
    service, environment = built
    module = service.replace("-", "_")

    where = subprocess.run(
        [environment / "bin" / "python", "-c", f"import {module}, shared; print({module}.__file__, shared.__file__)"],
        cwd=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert all(str(environment) in path for path in where.stdout.split())


@pytest.mark.timeout(300)
def test_image_has_one_command_whatever_the_service(built: tuple[str, Path]) -> None:
    service, environment = built

    printed = subprocess.run(
        [environment / "bin" / "service", "--openapi"], cwd=environment, capture_output=True, check=True
    )

    assert service in json.loads(printed.stdout)["info"]["title"]
    assert re.search(rf'^ENTRYPOINT \["{PREFIX}/bin/service"\]$', (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)


def test_lock_pins_the_installer_by_hash(tmp_path: Path) -> None:
    """The stage "uv" cannot run without a registry; its arguments to pip can be checked."""
    shutil.copy(REPOSITORY / "requirements.lock", tmp_path)
    command = next(rest for word, rest in instructions("uv") if word == "RUN")

    subprocess.run(["sh", "-ec", command.partition("&&")[0]], cwd=tmp_path, check=True)

    pinned = (tmp_path / "uv.lock").read_text()
    assert re.fullmatch(r"uv==[\d.]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", pinned)
