"""compose.yaml and the Dockerfile: valid, hardened, and in step with the settings and the services."""

import json
import re
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from shared.contracts.grants import GRANTS, PROVISION
from shared.runtime.settings import CUSTOMARY, Settings, read_settings
from shared.service import Service

REPOSITORY = Path(__file__).parents[3]
SERVICES = sorted(project.parent.name for project in REPOSITORY.glob("services/*/pyproject.toml"))


def settings_type(name: str) -> type[Settings]:
    """The type of a service's settings."""
    service: Service = import_module(f"{name.replace('-', '_')}.app").SERVICE
    return service.settings


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    assert isinstance(document, dict)
    return document


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    """The environment of a compose service as its process gets it when the host sets nothing."""
    held = {name: value for name, value in service.get("environment", {}).items() if value is not None}
    text = {name: json.dumps(value).strip('"') for name, value in held.items()}
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in text.items()}


def test_compose_file_is_valid_by_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"

    jsonschema.validate(compose, json.loads(schema.read_text()))


def test_compose_file_starts_every_service_there_is(compose: dict[str, Any]) -> None:
    built = {
        name: service["build"]["args"]["SERVICE"] for name, service in compose["services"].items() if "build" in service
    }

    assert {name: name for name in SERVICES} == built
    assert {"nats", "provision", "moto", *SERVICES} == compose["services"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_environment_of_a_service_holds_only_settings_that_exist(compose: dict[str, Any], name: str) -> None:
    environment = settings_of(compose["services"][name])

    fields = {variable.removeprefix("MILLRACE_").removesuffix("_FILE").lower() for variable in environment}
    assert fields <= set(settings_type(name).__struct_fields__)
    values = {variable: value for variable, value in environment.items() if not variable.endswith("_FILE")}
    read_settings(settings_type(name), values)


@pytest.mark.parametrize("name", SERVICES)
def test_proxies_and_authorities_of_the_host_are_those_of_a_service(compose: dict[str, Any], name: str) -> None:
    environment = compose["services"][name]["environment"]

    passed_on = {variable for variable, value in environment.items() if value is None}
    assert passed_on == {variable for names in CUSTOMARY.values() for variable in names if variable.isupper()}


def test_environment_of_the_image_holds_only_settings_that_exist() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()

    fields = {name.lower() for name in re.findall(r"\bMILLRACE_(\w+)", dockerfile)}
    assert {"http_host", "http_port", "data_dir"} == fields
    assert fields <= set(Settings.__struct_fields__)


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_of_a_service_are_files_and_its_own(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    mounted = {
        secret if isinstance(secret, str) else secret["target"]: secret if isinstance(secret, str) else secret["source"]
        for secret in service["secrets"]
    }

    assert {"secret_keys": "secret_keys", "nats_seed": f"{name}_seed"} == mounted
    assert compose["secrets"][f"{name}_seed"]["file"].endswith(f"/{name}.nk")
    assert name in GRANTS
    environment = settings_of(service)
    assert "/run/secrets/nats_seed" == environment["MILLRACE_NATS_SEED_FILE"]
    assert "/run/secrets/secret_keys" == environment["MILLRACE_SECRET_KEYS_FILE"]
    assert not {"MILLRACE_NATS_SEED", "MILLRACE_SECRET_KEYS"} & environment.keys()


def test_no_container_may_do_more_than_it_needs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert "privileged" not in service, name
        assert service["read_only"] is True, name
        assert ["ALL"] == service["cap_drop"], name
        assert ["no-new-privileges:true"] == service["security_opt"], name
        assert ["/tmp"] == service["tmpfs"], name


def test_every_container_has_a_health_check_and_is_restarted(compose: dict[str, Any]) -> None:
    for name in compose["services"].keys() - {"provision"}:
        service = compose["services"][name]
        assert "unless-stopped" == service["restart"], name
        assert "healthcheck" in service, name
    assert re.search(r"^HEALTHCHECK .*CMD \[", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)


def test_provisioning_runs_once_with_its_own_key_and_every_service_waits_for_it(compose: dict[str, Any]) -> None:
    once = compose["services"]["provision"]
    environment = settings_of(once)

    assert ["--provision"] == once["command"]
    assert once["restart"].startswith("on-failure")
    assert {"nats": {"condition": "service_healthy"}} == once["depends_on"]
    assert [{"source": "provision_seed", "target": "nats_seed"}] == once["secrets"]
    assert compose["secrets"]["provision_seed"]["file"].endswith(f"/{PROVISION}.nk")
    assert once["image"] in {compose["services"][name]["image"] for name in SERVICES}
    values = {variable: value for variable, value in environment.items() if not variable.endswith("_FILE")}
    settings = read_settings(Settings, values)
    assert (Settings().events_max_age_h, Settings().events_max_bytes) == (
        settings.events_max_age_h,
        settings.events_max_bytes,
    )
    for name in SERVICES:
        waits = compose["services"][name]["depends_on"]
        assert {"provision": {"condition": "service_completed_successfully"}} == waits, name


@pytest.mark.parametrize("name", SERVICES)
def test_engine_waits_longer_than_the_service_when_it_stops(compose: dict[str, Any], name: str) -> None:
    grace_s = float(compose["services"][name]["stop_grace_period"].removesuffix("s"))

    assert grace_s > Settings().stop_deadline_s


def test_stand_in_for_aws_starts_only_for_development(compose: dict[str, Any]) -> None:
    with_profile = {name for name, service in compose["services"].items() if service.get("profiles")}

    assert {"moto"} == with_profile
    assert ["dev"] == compose["services"]["moto"]["profiles"]
