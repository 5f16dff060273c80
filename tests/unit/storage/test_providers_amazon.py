"""The Amazon Storage connector: which values can be right, and what a stored object's address is."""

import msgspec
import pytest

from shared.errors import InvalidError
from shared.secret_store import Secret
from storage.providers.amazon import AmazonStorageConfig, checked

CONFIG = AmazonStorageConfig(
    access_key="AKIAIOSFODNN7EXAMPLE",
    secret_key=Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    bucket_name="media-of-shop",
    region="eu-west-1",
)


def changed(**fields: object) -> AmazonStorageConfig:
    return msgspec.structs.replace(CONFIG, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "https://media-of-shop.s3.eu-west-1.amazonaws.com/a/b.png"),
        ({"region": "cn-north-1"}, "https://media-of-shop.s3.cn-north-1.amazonaws.com.cn/a/b.png"),
        ({"bucket_name": "media.shop"}, "https://s3.eu-west-1.amazonaws.com/media.shop/a/b.png"),
        ({"endpoint_url": "https://minio.example:9000"}, "https://minio.example:9000/media-of-shop/a/b.png"),
        ({"cdn_base_url": "https://cdn.example/m"}, "https://cdn.example/m/a/b.png"),
    ],
)
def test_url_is_the_providers_public_form_or_the_cdns(fields: dict[str, object], expected: str) -> None:
    assert expected == changed(**fields).url("a/b.png")


def test_spaces_and_slashes_that_are_copied_along_are_taken_off() -> None:
    copied = changed(
        access_key=" AKIAIOSFODNN7EXAMPLE\n",
        secret_key=Secret("\twJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY "),
        prefix="/media/",
        cdn_base_url="https://cdn.example/",
    )

    expected = changed(prefix="media", cdn_base_url="https://cdn.example")
    assert expected == checked(copied, allow_private=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("access_key", ""),
        ("access_key", "AKIA IOSFODNN7EXAMPLE"),
        ("access_key", "short"),
        ("bucket_name", "ab"),
        ("bucket_name", "Media"),
        ("bucket_name", "a..b"),
        ("bucket_name", "192.168.0.1"),
        ("bucket_name", "bucket/prefix"),
        ("region", "eu west 1"),
        ("region", "Ireland"),
        ("prefix", "a//b"),
        ("prefix", "../up"),
        ("prefix", "a/.hidden"),
        ("prefix", "ü"),
        ("endpoint_url", "http://minio.example"),
        ("endpoint_url", "https://minio.example/path"),
        ("endpoint_url", "https://user:word@minio.example"),
        ("endpoint_url", "https://127.0.0.1:9000"),
        ("endpoint_url", "ftp://minio.example"),
        ("endpoint_url", "minio.example"),
        ("endpoint_url", "https://minio.example:port"),
        ("cdn_base_url", "http://cdn.example"),
        ("cdn_base_url", "https://cdn.example/?a=b"),
        ("cdn_base_url", "https://cdn.example/a b"),
        ("cdn_base_url", 'https://cdn.example/"'),
    ],
)
def test_value_that_cannot_be_right_is_refused_naming_its_field(field: str, value: str) -> None:
    with pytest.raises(InvalidError, match="expected") as raised:
        checked(changed(**{field: value}), allow_private=False)

    assert field == raised.value.field


def test_secret_is_in_no_message() -> None:
    with pytest.raises(InvalidError) as raised:
        checked(changed(secret_key=Secret("two words")), allow_private=False)

    assert "secret_key" == raised.value.field
    assert "two words" not in raised.value.message


def test_store_in_a_private_network_is_taken_when_the_operator_allows_it() -> None:
    local = changed(endpoint_url="http://127.0.0.1:5000", region="us-east-1", access_key="testing")

    assert local == checked(local, allow_private=True)
