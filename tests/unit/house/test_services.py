"""The table of services is in step with the folders, pyproject.toml, compose.yaml and the settings."""

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.contracts.services import SERVICE_NAMES, SERVICES, ServiceEntry
from shared.runtime.settings import Settings
from shared.service import Service

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    tools: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    return tools


def missing_in_pyproject(pyproject: dict[str, Any], service: ServiceEntry) -> list[str]:
    """Lines on a service that pyproject.toml lacks."""
    module = service.module
    mypy_path = f"$MYPY_CONFIG_FILE_DIR/services/{service.name}/src"
    rules = pyproject["importlinter"]
    contracts = {contract["name"]: contract for contract in rules["contracts"]}
    neighbours = contracts["services meet only through shared; the command line imports no service"]["layers"][0]
    inside = contracts.get(f"inside {module}", {})
    said = {
        f'"{mypy_path}" in mypy_path of [tool.mypy]': mypy_path in pyproject["mypy"]["mypy_path"],
        f'"{module}" in root_packages of [tool.importlinter]': module in rules["root_packages"],
        f'"{module}" in layers of the contract "services meet only …"': module in neighbours.split(" | "),
        f'"{module}" in ancestors of the contract "no circles"': module in contracts["no circles"]["ancestors"],
        f'an exhaustive contract "inside {module}"': inside.get("containers") == [module] and inside.get("exhaustive"),
    }
    return [line for line, is_there in said.items() if not is_there]


def test_table_of_services_has_a_row_for_each_folder() -> None:
    folders = {project.parent.name for project in REPOSITORY.glob("services/*/pyproject.toml")}

    assert folders == set(SERVICE_NAMES), "shared/contracts/services.py and services/ differ"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_pyproject_names_every_service(pyproject: dict[str, Any], service: ServiceEntry) -> None:
    missing = missing_in_pyproject(pyproject, service)

    assert [] == missing, f"pyproject.toml lacks {'; '.join(missing)}"


def test_service_that_pyproject_does_not_name_is_reported_line_by_line(pyproject: dict[str, Any]) -> None:
    unnamed = ServiceEntry(name="new-one", http_port=8085, own_grant=SERVICES[0].own_grant)

    assert [
        '"$MYPY_CONFIG_FILE_DIR/services/new-one/src" in mypy_path of [tool.mypy]',
        '"new_one" in root_packages of [tool.importlinter]',
        '"new_one" in layers of the contract "services meet only …"',
        '"new_one" in ancestors of the contract "no circles"',
        'an exhaustive contract "inside new_one"',
    ] == missing_in_pyproject(pyproject, unnamed)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_compose_file_publishes_the_ports_of_the_table(service: ServiceEntry) -> None:
    compose = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())

    published = [int(ports.split(":")[-2]) for ports in compose["services"][service.name]["ports"]]
    assert [service.http_port, *service.ports.values()] == published


def test_ports_of_the_table_are_all_different() -> None:
    ports = [port for service in SERVICES for port in (service.http_port, *service.ports.values())]

    assert len(ports) == len(set(ports))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_kinds_of_a_service_are_those_of_the_table(service: ServiceEntry) -> None:
    declared: Service = import_module(f"{service.module}.app").SERVICE

    assert sorted(service.kinds) == sorted(kind.keys for kind in declared.kinds)


def own_settings(service: ServiceEntry) -> set[str]:
    """Fields of the settings that stand with the service."""
    declared: Service = import_module(f"{service.module}.app").SERVICE
    return set(declared.settings.__struct_fields__) - set(Settings.__struct_fields__)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_settings_of_a_service_have_the_prefix_of_the_table(service: ServiceEntry) -> None:
    own = own_settings(service)

    assert bool(service.settings) == bool(own)
    assert set() == {field for field in own if not field.startswith(service.settings)}
    assert set() == {f"{listener}_port" for listener in service.ports} - own


@pytest.mark.parametrize("service", [one for one in SERVICES if one.settings], ids=lambda service: service.name)
def test_settings_of_a_service_are_read_by_it_alone(service: ServiceEntry) -> None:
    own = own_settings(service)
    others = [path for one in SERVICES if one != service for path in (REPOSITORY / "services" / one.name).rglob("*.py")]

    assert own
    assert [] == [field for field in Settings.__struct_fields__ if field.startswith(service.settings)]
    assert [] == [path for path in others if any(f".{field}" in path.read_text() for field in own)]
