"""Checks of a Kinesis connector before it is saved. The contract suite of sinks tests how its sink sends."""

from typing import Any

import msgspec
import pytest

from hooks.sinks.kinesis.config import KinesisConfig
from shared.aws.roles import AwsCredentials, AwsRole
from shared.config.secret import Secret
from shared.errors import InvalidError

GOOD: dict[str, Any] = {
    "region": "eu-central-1",
    "api_key": "AKIAIOSFODNN7EXAMPLE",
    "secret_key": Secret("not-a-real-secret-key"),
}


ROLE: dict[str, Any] = {"role_arn": "arn:aws:iam::123456789012:role/writer", "external_id": "shop"}


def check(*, allow_private: bool = False, **changes: Any) -> KinesisConfig:
    return KinesisConfig(**GOOD | changes).check(allow_private=allow_private, app_key="shop")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"endpoint_url": "https://vpce-0123.kinesis.eu-central-1.vpce.amazonaws.com"},
        {"endpoint_url": "https://kinesis.cn-north-1.amazonaws.com.cn:443"},
        {"endpoint_url": "http://127.0.0.1:5000", "api_key": "testing", "allow_private": True},
        ROLE,
        ROLE | {"api_key": "", "secret_key": Secret(""), "external_id": "shop:streams"},
    ],
)
def test_a_good_connector_is_accepted(changes: dict[str, Any]) -> None:
    check(**changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"api_key": "testing"}, "api_key"),
        ({"api_key": "", "endpoint_url": "https://kinesis.eu-central-1.amazonaws.com"}, "api_key"),
        (ROLE | {"role_arn": "arn:aws:iam::123456789012:user/writer"}, "role_arn"),
        ({"external_id": "shop"}, "role_arn"),
        (ROLE | {"external_id": "rival"}, "external_id"),
        (ROLE | {"external_id": "shopper"}, "external_id"),
        (ROLE | {"external_id": "shop:a b"}, "external_id"),
        (ROLE | {"secret_key": Secret("")}, "secret_key"),
        ({"secret_key": Secret("")}, "secret_key"),
        ({"secret_key": Secret("copied with a space ")}, "secret_key"),
        ({"endpoint_url": "http://kinesis.eu-central-1.amazonaws.com"}, "endpoint_url"),
        ({"endpoint_url": "https://169.254.169.254"}, "endpoint_url"),
        ({"endpoint_url": "https://amazonaws.com.example.org"}, "endpoint_url"),
        ({"endpoint_url": "https://notamazonaws.com"}, "endpoint_url"),
    ],
)
def test_a_connector_that_cannot_be_right_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check(**changes)

    assert field == caught.value.field
    assert "copied" not in caught.value.message


def test_the_secret_of_keys_that_a_role_replaces_is_let_go() -> None:
    assert not check(**ROLE | {"api_key": ""}).secret_key


def test_a_role_is_assumed_by_the_keys_or_by_the_service_itself() -> None:
    keys = AwsCredentials(access_key_id=GOOD["api_key"], secret_access_key=GOOD["secret_key"])

    assert keys == check().credentials
    assert AwsRole(**ROLE, base=keys) == check(**ROLE).credentials
    assert AwsRole(**ROLE, base=None) == check(**ROLE | {"api_key": ""}).credentials


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "here"},
        {"region": "eu-central-1\n"},
        {"api_key": "with space"},
        {"endpoint_url": "ftp://x"},
        {"endpoint_url": "https://user:password@host"},
        {"endpoint_url": "https://host/path"},
    ],
)
def test_a_field_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(changes))):
        msgspec.convert(GOOD | changes, KinesisConfig)
