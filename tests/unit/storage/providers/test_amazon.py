"""The Amazon Storage connector: valid and invalid fields, and the URLs of its objects."""

import msgspec
import pytest

from shared.aws.roles import AwsCredentials, AwsRole
from shared.config.secret import Secret
from shared.errors import InvalidError
from storage.providers.amazon import AmazonStorageConfig, checked

CONFIG = AmazonStorageConfig(
    access_key="AKIAIOSFODNN7EXAMPLE",
    secret_key=Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    bucket_name="media-of-shop",
    region="eu-west-1",
)


ARN = "arn:aws:iam::123456789012:role/media/writer"


def take(config: AmazonStorageConfig, *, allow_private: bool = False) -> AmazonStorageConfig:
    """As the app `shop` enters it."""
    return checked(config, allow_private=allow_private, app_key="shop")


def changed(**fields: object) -> AmazonStorageConfig:
    return msgspec.structs.replace(CONFIG, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "https://media-of-shop.s3.eu-west-1.amazonaws.com/a/b.png"),
        ({"region": "cn-north-1"}, "https://media-of-shop.s3.cn-north-1.amazonaws.com.cn/a/b.png"),
        ({"region": "eusc-de-east-1"}, "https://media-of-shop.s3.eusc-de-east-1.amazonaws.eu/a/b.png"),
        ({"region": "us-iso-east-1"}, "https://media-of-shop.s3.us-iso-east-1.c2s.ic.gov/a/b.png"),
        ({"bucket_name": "media.shop"}, "https://s3.eu-west-1.amazonaws.com/media.shop/a/b.png"),
        ({"endpoint_url": "https://minio.example:9000"}, "https://minio.example:9000/media-of-shop/a/b.png"),
        ({"cdn_base_url": "https://cdn.example/m"}, "https://cdn.example/m/a/b.png"),
    ],
)
def test_url_is_the_providers_public_form_or_the_cdns(fields: dict[str, object], expected: str) -> None:
    assert expected == changed(**fields).url("a/b.png")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "s3://media-of-shop"),
        ({"access_key": "B" * 20, "prefix": "p", "cdn_base_url": "https://cdn.example"}, "s3://media-of-shop"),
        ({"endpoint_url": "https://minio.example:9000"}, "s3://minio.example:9000/media-of-shop"),
    ],
)
def test_place_is_the_bucket_of_its_store(fields: dict[str, object], expected: str) -> None:
    assert expected == changed(**fields).place


def test_copied_spaces_and_slashes_are_removed() -> None:
    copied = changed(
        access_key=" AKIAIOSFODNN7EXAMPLE\n",
        secret_key=Secret("\twJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY "),
        prefix="/media/",
        cdn_base_url="https://cdn.example/",
    )

    expected = changed(prefix="media", cdn_base_url="https://cdn.example")
    assert expected == take(copied)


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
        ("cdn_base_url", "https://görsel.example"),
        ("cdn_base_url", "https://cdn.example<script>"),
        ("cdn_base_url", 'https://cdn"x.example'),
        ("cdn_base_url", "https://cdn'x.example"),
        ("cdn_base_url", "https://a b.example"),
        ("cdn_base_url", "https://a,b.example"),
        ("cdn_base_url", "https://a(b).example"),
        ("cdn_base_url", "https://a..b.example"),
    ],
)
def test_value_that_cannot_be_right_is_refused_naming_its_field(field: str, value: str) -> None:
    with pytest.raises(InvalidError, match="expected") as raised:
        take(changed(**{field: value}))

    assert field == raised.value.field


def test_secret_is_in_no_message() -> None:
    with pytest.raises(InvalidError) as raised:
        take(changed(secret_key=Secret("two words")))

    assert "secret_key" == raised.value.field
    assert "two words" not in raised.value.message


def test_store_in_a_private_network_is_accepted_when_the_operator_allows_it() -> None:
    local = changed(endpoint_url="http://127.0.0.1:5000", region="us-east-1", access_key="testing")

    assert local == take(local, allow_private=True)


def role(**fields: object) -> AmazonStorageConfig:
    return changed(**{"access_key": "", "secret_key": Secret(""), "role_arn": ARN, "external_id": "shop"} | fields)


@pytest.mark.parametrize("external_id", ["shop", "shop:1", "shop:a/b=c", " shop "])
def test_role_replaces_keys(external_id: str) -> None:
    taken = take(role(external_id=external_id))

    assert AwsRole(role_arn=ARN, external_id=external_id.strip(), base=None) == taken.credentials


def test_keys_assume_the_role_where_both_are_set() -> None:
    taken = take(role(access_key=CONFIG.access_key, secret_key=CONFIG.secret_key))

    keys = AwsCredentials(access_key_id=CONFIG.access_key, secret_access_key=CONFIG.secret_key)
    assert AwsRole(role_arn=ARN, external_id="shop", base=keys) == taken.credentials


def test_saved_secret_of_keys_that_the_role_replaces_is_dropped() -> None:
    assert role() == take(role(secret_key=CONFIG.secret_key))


@pytest.mark.parametrize("external_id", ["", "rival", "rival:shop", "shopping", "shop-2", "Shop", "shop:ü", "shop: x"])
def test_role_of_another_tenant_cannot_be_borrowed(external_id: str) -> None:
    with pytest.raises(InvalidError, match="'shop:'") as raised:
        take(role(external_id=external_id))

    assert "external_id" == raised.value.field


@pytest.mark.parametrize(
    "role_arn",
    [
        "",
        "writer",
        "arn:aws:iam::1234:role/writer",
        "arn:aws:iam::123456789012:user/writer",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/a b",
        "arn:aws:sts::123456789012:assumed-role/writer/x",
    ],
)
def test_malformed_role_is_refused(role_arn: str) -> None:
    with pytest.raises(InvalidError, match="the ARN of a role") as raised:
        take(role(role_arn=role_arn))

    assert "role_arn" == raised.value.field


@pytest.mark.parametrize(
    "arn", [ARN, "arn:aws-cn:iam::123456789012:role/w", "arn:aws-us-gov:iam::123456789012:role/w@x"]
)
def test_role_of_every_partition_is_accepted(arn: str) -> None:
    assert arn == take(role(role_arn=arn)).role_arn


def test_neither_keys_nor_a_role_is_refused_naming_what_is_expected() -> None:
    with pytest.raises(InvalidError, match="an access key id, or a role_arn") as raised:
        take(changed(access_key="", secret_key=Secret("")))

    assert "access_key" == raised.value.field


def test_half_of_the_keys_is_refused_with_a_role_too() -> None:
    with pytest.raises(InvalidError) as raised:
        take(role(access_key=CONFIG.access_key))

    assert "secret_key" == raised.value.field


def test_the_token_of_temporary_keys_goes_with_them() -> None:
    token = Secret(" IQoJb3JpZ2lu\n")
    temporary = take(changed(access_key="ASIAIOSFODNN7EXAMPLE", session_token=token))
    lasting = take(changed(session_token=token))

    assert isinstance(temporary.credentials, AwsCredentials)
    assert "IQoJb3JpZ2lu" == temporary.credentials.session_token.reveal()
    assert not lasting.session_token, "a form that leaves the token out has the saved one"
    with pytest.raises(InvalidError) as refused:
        take(changed(access_key="ASIAIOSFODNN7EXAMPLE"))
    assert "session_token" == refused.value.field
