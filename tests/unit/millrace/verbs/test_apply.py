"""Plans, changes and refusals of `millrace apply`; a fake answers for the services."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from millrace.configuration.file import ApplyFile, read_apply_file
from millrace.mesh.service_api import ServiceApi
from millrace.verbs.apply import PlannedChange, carry_out, described, make_plan, variables
from shared.errors import InvalidError, UnavailableError

FILE = """\
[apps.shop.connectors.kinesis]
region = "eu-central-1"
secret_key = "s3cret"

[apps.shop.hooks.purchases]
stream_nam = "purchases"

[apps.shop.hooks.views]
stream_name = 1
"""


class Services:
    """A fake of the services: it keeps each resource that is put, and knows the fields."""

    def __init__(self, known: set[str] | None = None) -> None:
        self.kept: dict[str, Any] = {}
        self.known = known
        self.down = False

    async def call(
        self, service: str, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None
    ) -> Any:
        assert "PUT" == method
        if self.down:
            raise UnavailableError(f"{service} cannot be reached")
        for field, value in body.items():
            if self.known is not None and field not in self.known:
                raise InvalidError(f"Object contains unknown field `{field}`", field=field)
            if not isinstance(value, str):
                raise InvalidError("Expected `str`, got `int`", field=field)
        old = self.kept.get(path)
        fields = [name for name in body if old is None or old.get(name) != body[name]]
        if not query:
            self.kept[path] = body
        return {
            "change": "created" if old is None else "updated" if fields else "unchanged",
            "fields": fields,
            "revision": 1,
            "dry_run": bool(query),
        }


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def api(services: Services) -> ServiceApi:
    return cast(ServiceApi, services)


def read(tmp_path: Path, text: str) -> ApplyFile:
    (tmp_path / "mesh.toml").write_text(text)
    return read_apply_file(tmp_path / "mesh.toml", lambda _: None)


async def test_plan_names_every_refused_line_and_changes_nothing(
    tmp_path: Path, api: ServiceApi, services: Services
) -> None:
    services.known = {"region", "secret_key", "stream_name"}

    with pytest.raises(InvalidError) as caught:
        await make_plan(api, read(tmp_path, FILE))

    assert [
        "mesh.toml:6: apps.shop.hooks.purchases.stream_nam: unknown field",
        "mesh.toml:9: apps.shop.hooks.views.stream_name: Expected `str`, got `int`",
        "nothing was changed",
    ] == [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]
    assert {} == services.kept


async def test_second_run_has_nothing_to_change(tmp_path: Path, api: ServiceApi) -> None:
    file = read(tmp_path, FILE.replace("= 1", '= "views"'))
    said: list[str] = []

    first = await make_plan(api, file)
    await carry_out(api, file, [resource for resource, _ in first], said.append)
    second = await make_plan(api, file)

    assert ["created"] * 3 == [change.change for _, change in first]
    assert 3 == len(said)
    assert ["unchanged"] * 3 == [change.change for _, change in second]


async def test_plan_shows_names_and_no_values(tmp_path: Path, api: ServiceApi) -> None:
    plan = await make_plan(api, read(tmp_path, FILE.replace("= 1", '= "views"')))

    lines = [described(resource, change) for resource, change in plan]

    assert "+ apps.shop.connectors.kinesis created: region, secret_key" == lines[0]
    assert "s3cret" not in "".join(lines)


async def test_service_that_is_down_is_reported(tmp_path: Path, api: ServiceApi, services: Services) -> None:
    services.down = True

    with pytest.raises(UnavailableError, match="hooks cannot be reached"):
        await make_plan(api, read(tmp_path, FILE))


async def test_number_of_changes_is_reported_when_a_later_one_is_refused(
    tmp_path: Path, api: ServiceApi, services: Services
) -> None:
    file = read(tmp_path, FILE)

    with pytest.raises(InvalidError, match="2 of 3 were changed"):
        await carry_out(api, file, file.resources, lambda _: None)

    assert 2 == len(services.kept)


def test_line_of_the_plan_has_a_sign_for_what_happens(tmp_path: Path) -> None:
    resource = read(tmp_path, FILE).resources[0]

    assert "~ apps.shop.connectors.kinesis updated: region" == described(
        resource, PlannedChange(change="updated", fields=("region",))
    )
    assert "= apps.shop.connectors.kinesis unchanged" == described(resource, PlannedChange(change="unchanged"))


def test_variables_come_from_set_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "from the environment")
    monkeypatch.setenv("STAGE", "test")

    value_of = variables(["REGION=eu=central", "EMPTY="])

    assert ("eu=central", "", "test", None) == tuple(map(value_of, ("REGION", "EMPTY", "STAGE", "NOPE_NOPE")))


@pytest.mark.parametrize("given", ["REGION", "=x"])
def test_variable_without_name_or_value_is_refused(given: str) -> None:
    with pytest.raises(InvalidError, match="expected NAME=VALUE"):
        variables([given])
