"""The Azure Storage connector: valid and invalid fields, and the URLs of its objects."""

import base64

import msgspec
import pytest

from shared.config.secret import Secret
from shared.errors import InvalidError
from storage.providers.azure import AzureStorageConfig, checked

KEY = base64.b64encode(bytes(range(64))).decode()
CONFIG = AzureStorageConfig(account_name="shopmedia", account_key=Secret(KEY), container_name="media")
CONNECTION_STRING = (
    f"DefaultEndpointsProtocol=https;AccountName=shopmedia;AccountKey={KEY};EndpointSuffix=core.windows.net"
)


def take(config: AzureStorageConfig, *, allow_private: bool = False) -> AzureStorageConfig:
    """As the app `shop` enters it."""
    return checked(config, allow_private=allow_private, app_key="shop")


def changed(**fields: object) -> AzureStorageConfig:
    return msgspec.structs.replace(CONFIG, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "https://shopmedia.blob.core.windows.net/media/a/b.png"),
        ({"endpoint_suffix": "core.chinacloudapi.cn"}, "https://shopmedia.blob.core.chinacloudapi.cn/media/a/b.png"),
        ({"default_endpoints_protocol": "http"}, "http://shopmedia.blob.core.windows.net/media/a/b.png"),
        ({"blob_endpoint": "http://127.0.0.1:1/dev"}, "http://127.0.0.1:1/dev/media/a/b.png"),
        ({"cdn_base_url": "https://cdn.example/m"}, "https://cdn.example/m/a/b.png"),
    ],
)
def test_url_is_the_providers_public_form_or_the_cdns(fields: dict[str, object], expected: str) -> None:
    assert expected == changed(**fields).url("a/b.png")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "azure://shopmedia/media"),
        (
            {"account_key": Secret("AAAA"), "prefix": "p", "cdn_base_url": "https://cdn.example"},
            "azure://shopmedia/media",
        ),
        ({"endpoint_suffix": "core.usgovcloudapi.net"}, "azure://shopmedia/media"),
        ({"endpoint_suffix": "store.example"}, "azure://shopmedia@shopmedia.blob.store.example/media"),
        ({"blob_endpoint": "http://127.0.0.1:1/dev"}, "azure://shopmedia@127.0.0.1:1/dev/media"),
    ],
)
def test_place_is_the_container_of_its_account(fields: dict[str, object], expected: str) -> None:
    assert expected == changed(**fields).place


def test_copied_spaces_and_slashes_are_removed() -> None:
    copied = changed(
        account_name=" shopmedia\n",
        account_key=Secret(f"\t{KEY} "),
        container_name="/media/",
        default_endpoints_protocol=" HTTPS ",
        endpoint_suffix=".core.windows.net/",
        prefix="/campaigns/",
        cdn_base_url="https://cdn.example/",
    )

    assert changed(prefix="campaigns", cdn_base_url="https://cdn.example") == take(copied)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account_name", ""),
        ("account_name", "ab"),
        ("account_name", "a" * 25),
        ("account_name", "ShopMedia"),
        ("account_name", "shop-media"),
        ("account_name", "shopmedia.blob.core.windows.net"),
        ("container_name", "ab"),
        ("container_name", "a" * 64),
        ("container_name", "Media"),
        ("container_name", "-media"),
        ("container_name", "media-"),
        ("container_name", "me--dia"),
        ("container_name", "media/prefix"),
        ("container_name", "$web"),
        ("default_endpoints_protocol", "http"),
        ("default_endpoints_protocol", "ftp"),
        ("default_endpoints_protocol", ""),
        ("endpoint_suffix", ""),
        ("endpoint_suffix", "core windows net"),
        ("endpoint_suffix", "https://core.windows.net"),
        ("endpoint_suffix", "blob.core.windows.net"),
        ("endpoint_suffix", "core.windows.net:443"),
        ("endpoint_suffix", "localhost"),
        ("endpoint_suffix", "store.internal"),
        ("blob_endpoint", "http://store.example"),
        ("blob_endpoint", "https://127.0.0.1/dev"),
        ("blob_endpoint", "https://user:word@store.example"),
        ("blob_endpoint", "https://store.example/?sv=1"),
        ("prefix", "../up"),
        ("prefix", "a/.hidden"),
        ("cdn_base_url", "http://cdn.example"),
        ("cdn_base_url", "https://cdn.example/a b"),
    ],
)
def test_value_that_cannot_be_right_is_refused_naming_its_field(field: str, value: str) -> None:
    with pytest.raises(InvalidError, match="expected") as raised:
        take(changed(**{field: value}))

    assert field == raised.value.field


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "in Base64"),
        ("not Base64!", "in Base64"),
        (KEY[:-1], "in Base64"),
        ("?sv=2022-11-02&ss=b&sig=abc%3D", "shared access signature"),
        (CONNECTION_STRING, "connection string"),
    ],
)
def test_key_that_cannot_be_right_is_refused_and_not_repeated(key: str, problem: str) -> None:
    with pytest.raises(InvalidError, match=problem) as raised:
        take(changed(account_key=Secret(key)))

    assert "account_key" == raised.value.field
    assert KEY[:20] not in raised.value.message
    assert "abc" not in raised.value.message


@pytest.mark.parametrize("field", ["account_name", "container_name", "endpoint_suffix", "blob_endpoint", "prefix"])
def test_connection_string_in_one_field_is_refused_naming_its_parts(field: str) -> None:
    with pytest.raises(InvalidError, match="each into its own field") as raised:
        take(changed(**{field: CONNECTION_STRING}))

    assert field == raised.value.field
    assert KEY not in raised.value.message


@pytest.mark.parametrize("suffix", ["core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net"])
def test_every_cloud_of_azure_is_accepted(suffix: str) -> None:
    assert suffix == take(changed(endpoint_suffix=suffix.upper())).endpoint_suffix


def test_store_in_a_private_network_is_accepted_when_the_operator_allows_it() -> None:
    local = changed(blob_endpoint="http://127.0.0.1:10000/devstoreaccount1", account_name="devstoreaccount1")
    plain = changed(default_endpoints_protocol="http", endpoint_suffix="azurite")

    assert local == take(local, allow_private=True)
    assert plain == take(plain, allow_private=True)
