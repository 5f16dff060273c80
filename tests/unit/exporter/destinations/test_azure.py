"""The Azure destination: valid and invalid fields, and what identifies its container."""

import base64
from typing import Any

import pytest
from msgspec.structs import replace

from exporter.destinations.azure import AzureConfig
from shared.config.secret import Secret
from shared.errors import InvalidError

KEY = base64.b64encode(bytes(range(64))).decode()
SAS = "sp=rc&st=2026-11-22T00:00:00Z&se=2027-11-22T00:00:00Z&spr=https&sv=2022-11-02&sr=c&sig=Q%2Fx%2B9%3D"
CONFIG = AzureConfig(account_name="shopdata", account_key=Secret(KEY), container="exports", directory="raw")


def changed(**fields: Any) -> AzureConfig:
    return replace(CONFIG, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"account_key": Secret(""), "sas_token": Secret(SAS)},
        {"account_key": Secret(""), "sas_token": Secret(f"?{SAS}")},
        {"endpoint_url": "https://shopdata.blob.core.chinacloudapi.cn"},
        {"directory": ""},
    ],
)
def test_form_that_can_be_right_is_accepted(fields: dict[str, Any]) -> None:
    changed(**fields).check(allow_private=False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"account_name": "Shop-Data"}, "account_name"),
        ({"container": "a--b"}, "container"),
        ({"account_key": Secret("no base64")}, "account_key"),
        ({"account_key": Secret(SAS)}, "account_key"),
        ({"account_key": Secret(f"AccountName=shopdata;AccountKey={KEY}")}, "account_key"),
        ({"account_key": Secret("")}, "sas_token"),
        ({"sas_token": Secret(SAS)}, "sas_token"),
        ({"account_key": Secret(""), "sas_token": Secret("sp=rc&se=2027")}, "sas_token"),
        ({"account_key": Secret(""), "sas_token": Secret(f"https://shopdata.blob.core/exports?{SAS}")}, "sas_token"),
        ({"directory": "a/../b"}, "directory"),
        ({"endpoint_url": "http://shopdata.blob.core.windows.net"}, "endpoint_url"),
        ({"endpoint_url": "https://127.0.0.1:10000/shopdata"}, "endpoint_url"),
    ],
)
def test_form_is_refused_when_a_field_cannot_be_right(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        changed(**fields).check(allow_private=False)

    assert f"destination.{field}" == caught.value.field
    assert KEY not in caught.value.message
    assert "Q%2Fx" not in caught.value.message


@pytest.mark.parametrize(
    ("endpoint_url", "place"),
    [
        ("", "shopdata.blob.core.windows.net exports"),
        ("https://shopdata.blob.core.windows.net/", "shopdata.blob.core.windows.net exports"),
        ("https://ShopData.blob.core.windows.net:443", "shopdata.blob.core.windows.net exports"),
        ("https://shopdata.blob.core.usgovcloudapi.net", "shopdata.blob.core.usgovcloudapi.net exports"),
        ("http://127.0.0.1:10000/shopdata", "127.0.0.1:10000/shopdata exports"),
        ("http://127.0.0.1:10000/shopdata2", "127.0.0.1:10000/shopdata2 exports"),
        ("https://data.shop.example", "data.shop.example/ exports"),
        ("https://data.shop.example/", "data.shop.example/ exports"),
    ],
)
def test_place_is_the_container_however_its_address_is_written(endpoint_url: str, place: str) -> None:
    config = changed(endpoint_url=endpoint_url, directory="/raw//clicks/")

    assert place == config.place("shop") == config.place("rival")
    assert f"{place} raw/clicks" == config.location("shop")
