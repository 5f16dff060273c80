"""A configuration file as resources, and its mistakes with their lines."""

from pathlib import Path

import pytest

from millrace.configuration.file import Resource, read_apply_file
from shared.errors import InvalidError

FILE = """\
[apps.shop]
display_name = "Shop"
timezone = "Europe/Istanbul"

[apps.shop.exports.clicks]
bucket = "reports-${STAGE}"
when = { every = ["${STAGE}", 15] }

[apps.shop.hooks.purchases]
stream_name = "purchases"

[apps.shop.connectors.kinesis]
secret_key = "${AWS_SECRET}"

[apps.shop.connectors.amazon-storage]
bucket_name = "media"

[apps.shop.ftp_users.erp]
password = "x"

[apps.other.hooks.all]
stream_name = "all"
"""
VALUES = {"STAGE": "test", "AWS_SECRET": "s3cret ${STAGE}"}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mesh.toml"
    file.write_text(text)
    return file


def found(tmp_path: Path, text: str = FILE) -> dict[str, Resource]:
    return {one.name: one for one in read_apply_file(written(tmp_path, text), VALUES.get).resources}


def test_every_table_becomes_a_resource_of_its_service(tmp_path: Path) -> None:
    resources = found(tmp_path)

    assert {
        "apps.shop": ("ftp-gateway", "/v1/apps/shop"),
        "apps.shop.connectors.kinesis": ("hooks", "/v1/apps/shop/connectors/kinesis"),
        "apps.shop.connectors.amazon-storage": ("storage", "/v1/apps/shop/connectors/amazon-storage"),
        "apps.shop.ftp_users.erp": ("ftp-gateway", "/v1/apps/shop/ftp-users/erp"),
        "apps.shop.hooks.purchases": ("hooks", "/v1/apps/shop/hooks/purchases"),
        "apps.other.hooks.all": ("hooks", "/v1/apps/other/hooks/all"),
        "apps.shop.exports.clicks": ("exporter", "/v1/apps/shop/exports/clicks"),
    } == {name: (one.service, one.path) for name, one in resources.items()}


def test_resources_come_after_those_they_refer_to(tmp_path: Path) -> None:
    names = list(found(tmp_path))

    assert "apps.shop" == names[0]
    assert names.index("apps.shop.connectors.kinesis") < names.index("apps.shop.hooks.purchases")


def test_app_is_left_alone_when_its_table_is_only_implied(tmp_path: Path) -> None:
    assert "apps.other" not in found(tmp_path)


def test_app_has_its_own_fields_only(tmp_path: Path) -> None:
    assert {"display_name": "Shop", "timezone": "Europe/Istanbul"} == found(tmp_path)["apps.shop"].body


def test_variables_are_filled_in_once_and_wherever_they_stand(tmp_path: Path) -> None:
    resources = found(tmp_path)

    assert {"bucket": "reports-test", "when": {"every": ["test", 15]}} == resources["apps.shop.exports.clicks"].body
    assert {"secret_key": "s3cret ${STAGE}"} == resources["apps.shop.connectors.kinesis"].body


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[app.shop]\n", "mesh.toml:1: app: unknown table"),
        ("[apps.a]\n\n[apps.a.connectors.gcs]\nx = 1\n", "mesh.toml:3: apps.a.connectors.gcs: unknown connector"),
        ("[apps.a.hooks]\n\nx = 1\n", "mesh.toml:3: apps.a.hooks.x: expected a table"),
        ("apps = 3\n", "mesh.toml:1: apps: expected a table"),
        ("[apps.a]\nkey = ['x',\n  '${NOPE}']\n", r"mesh.toml:3: apps.a.key\[1\]: \$\{NOPE\} is not set"),
        ("[apps.a]\nkey = 1\nkey = 2\n", "mesh.toml:3:8: Cannot overwrite a value"),
        ("[apps.a]\nkey = nope\n", "mesh.toml:2:7: Invalid value"),
    ],
)
def test_mistake_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        found(tmp_path, text)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"none\.toml cannot be read: No such file"):
        read_apply_file(tmp_path / "none.toml", VALUES.get)


def test_file_in_another_encoding_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mesh.toml").write_bytes("[apps.a]\nx = 'ş'\n".encode("iso-8859-9"))

    with pytest.raises(InvalidError, match=r"mesh\.toml is not UTF-8"):
        read_apply_file(tmp_path / "mesh.toml", VALUES.get)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            InvalidError("Object contains unknown field `stream_name`", field="stream_name"),
            "mesh.toml:10: apps.shop.hooks.purchases.stream_name: unknown field",
        ),
        (
            InvalidError("Expected `str`, got `int`", field="stream_name"),
            "mesh.toml:10: apps.shop.hooks.purchases.stream_name: Expected `str`, got `int`",
        ),
        (
            InvalidError("Object missing required field `name`", field="name"),
            "mesh.toml:9: apps.shop.hooks.purchases.name: Object missing required field `name`",
        ),
        (InvalidError("there is no connector"), "mesh.toml:9: apps.shop.hooks.purchases: there is no connector"),
    ],
)
def test_refusal_of_a_service_is_reported_with_the_line_of_its_field(
    tmp_path: Path, error: InvalidError, message: str
) -> None:
    file = read_apply_file(written(tmp_path, FILE), VALUES.get)
    resource = next(one for one in file.resources if one.name == "apps.shop.hooks.purchases")

    assert str(file.refusal(resource, error)).endswith(message)


def test_refusal_of_an_inner_table_is_reported_with_the_line_of_the_unknown_key(tmp_path: Path) -> None:
    file = read_apply_file(
        written(tmp_path, "[apps.a.exports.x]\n[apps.a.exports.x.filter]\nb = 1\nbad = 2\n"), VALUES.get
    )

    told = file.refusal(file.resources[0], InvalidError("Object contains unknown field `bad`", field="filter"))

    assert str(told).endswith("mesh.toml:4: apps.a.exports.x.filter.bad: unknown field")
