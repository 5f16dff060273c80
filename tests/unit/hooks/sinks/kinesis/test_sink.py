"""Checks of a Kinesis connector before it is saved. The contract suite of sinks tests how its sink sends."""

from typing import Any

import msgspec
import pytest

from hooks.sinks.kinesis.config import KinesisConfig
from hooks.sinks.kinesis.sink import KinesisSink
from shared.aws.roles import AwsCredentials, AwsRole
from shared.config.secret import Secret
from shared.errors import InvalidError, NotFoundError

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
        {"endpoint_url": "https://kinesis-fips.us-east-1.api.aws", "region": "us-east-1"},
        {"endpoint_url": "https://kinesis.eusc-de-east-1.amazonaws.eu", "region": "eusc-de-east-1"},
        {"api_key": "ASIAIOSFODNN7EXAMPLE", "session_token": Secret("IQoJb3JpZ2lu/+=")},
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
        ({"endpoint_url": "https://kinesis.eu-central-1.amazonaws.com:99999"}, "endpoint_url"),
        ({"endpoint_url": "https://amazonaws.com.example.org"}, "endpoint_url"),
        ({"endpoint_url": "https://notamazonaws.com"}, "endpoint_url"),
        ({"endpoint_url": "https://ec2-203-0-113-9.eu-west-1.compute.amazonaws.com"}, "endpoint_url"),
        ({"api_key": "ASIAIOSFODNN7EXAMPLE"}, "session_token"),
        ({"api_key": "ASIAIOSFODNN7EXAMPLE", "session_token": Secret("a b")}, "session_token"),
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


def test_the_token_of_temporary_keys_goes_with_them() -> None:
    token = Secret("IQoJb3JpZ2lu")
    temporary = check(api_key="ASIAIOSFODNN7EXAMPLE", session_token=token)
    # A form that leaves the token out has the saved one.
    lasting = check(session_token=token)
    role = check(**ROLE | {"api_key": "", "session_token": token})

    assert isinstance(temporary.credentials, AwsCredentials)
    assert token == temporary.credentials.session_token
    assert isinstance(lasting.credentials, AwsCredentials)
    assert not lasting.credentials.session_token
    assert not role.session_token


def test_a_stream_of_another_region_is_told_by_its_arn() -> None:
    here, there = (
        "arn:aws:kinesis:eu-central-1:123456789012:stream/s",
        "arn:aws:kinesis:us-east-1:123456789012:stream/s",
    )
    api = check().api(None)  # type: ignore[arg-type]

    KinesisSink(api, here)._check_region()
    with pytest.raises(NotFoundError, match="in us-east-1 by its ARN, and the connector in eu-central-1"):
        KinesisSink(api, there)._check_region()
