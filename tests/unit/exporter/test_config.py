"""The fields of an export, and the job that is made of them."""

from functools import partial
from typing import Any

import pytest

from exporter.config.export import Export, check_number, job_of
from exporter.destinations.gateway import GatewayConfig, destination_file_name
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.exports.schedule import schedule_of
from exporter.folders.claims import Folder
from exporter.formats import FORMATS
from shared.aws.clients import AwsClients
from shared.config.registry import ConfigEntry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.errors import InvalidError
from shared.objects.app_reports import open_reports
from shared.runtime.settings import Settings
from support.outgoing import open_outgoing

OUTGOING = open_outgoing()
ADVERTISER = "5F059C53D346519B154F20D4"
ROLE = "arn:aws:iam::123456789012:role/exports"


async def external_id(app_key: str) -> str:
    return f"{app_key}:of-a-test"


PLATFORM = Platform(
    outgoing=OUTGOING,
    allow_private=False,
    open_reports=partial(open_reports, Settings(), OUTGOING),
    aws=AwsClients(OUTGOING),
    external_id=external_id,
)


def export(**changes: Any) -> Export:
    destination = {
        "type": "s3",
        "bucket": "raw-data",
        "region": "eu-west-1",
        "access_key": "AKIAEXAMPLE",
        "secret_key": "secret",
        "directory": "clicks",
    } | changes.pop("destination", {})
    form = {"data": "clicks", "destination": destination} | changes
    value = SecretStore([generate_key()]).from_form(form, Export, None)
    value.check(allow_private=False)
    return value


def test_an_app_has_a_bounded_number_of_exports_and_of_shards() -> None:
    def entries(count: int, shards: int) -> list[ConfigEntry[Export]]:
        return [ConfigEntry("shop", f"e{n}", export(data="events", shards=shards), 1) for n in range(count)]

    one = export(data="events")
    check_number(one, "new", entries(99, 1))
    check_number(one, "e0", entries(100, 1))
    check_number(one, "new", entries(15, 16))
    for others, field in ((entries(100, 1), "id"), (entries(16, 16), "shards")):
        with pytest.raises(InvalidError) as refused:
            check_number(one, "new", others)
        assert field == refused.value.field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": "views"}, "data"),
        ({"frequency": 0}, "frequency"),
        ({"frequency": 1441}, "frequency"),
        ({"frequency": 1.5}, "frequency"),
        ({"frequency_s": 0.5}, "frequency_s"),
        ({"layout": "braze"}, "layout"),
        ({"data": "events", "shards": 3}, "shards"),
        ({"data": "conversions", "shards": 2}, "shards"),
        ({"affiliates": ["4"]}, "affiliates[0]"),
        ({"affiliates": [1, 1]}, "affiliates"),
        ({"advertisers": ["xyz"]}, "advertisers[0]"),
        ({"destination": {"type": "ftp"}}, "destination.type"),
        ({"destination": {"bucket": "a b"}}, "destination.bucket"),
        ({"destination": {"region": "Frankfurt"}}, "destination.region"),
        ({"destination": {"access_key": "AKIA\n"}}, "destination.access_key"),
        ({"destination": {"secret_key": "***"}}, "destination.secret_key"),
        ({"destination": {"secret_key": ""}}, "destination.secret_key"),
        ({"destination": {"sse": "AES128"}}, "destination.sse"),
        ({"destination": {"sse": True}}, "destination.sse"),
        ({"destination": {"sse": "aws:kms"}}, "destination.sse_kms_key_id"),
        ({"destination": {"sse": "AES256", "sse_kms_key_id": "alias/data"}}, "destination.sse_kms_key_id"),
        ({"destination": {"sse_kms_key_id": "alias/data"}}, "destination.sse_kms_key_id"),
        ({"destination": {"sse": "aws:kms", "sse_kms_key_id": "a b"}}, "destination.sse_kms_key_id"),
        ({"destination": {"access_key": "ASIAEXAMPLE"}}, "destination.session_token"),
        ({"destination": {"access_key": "ASIAEXAMPLE", "session_token": "a b"}}, "destination.session_token"),
        ({"destination": {"access_key": ""}}, "destination.access_key"),
        ({"destination": {"role_arn": ROLE}}, "destination.access_key"),
        ({"destination": {"access_key": "", "role_arn": ROLE + "\n"}}, "destination.role_arn"),
        ({"destination": {"access_key": "", "role_arn": "exports"}}, "destination.role_arn"),
        ({"destination": {"external_id": "shop:mine"}}, "destination.external_id"),
        ({"destination": {"directory": "../x"}}, "destination.directory"),
        ({"destination": {"endpoint_url": "https://10.0.0.1"}}, "destination.endpoint_url"),
        ({"destination": {"oops": 1}}, "destination.oops"),
        ({"data": "events", "plain_names": True}, "plain_names"),
        ({"plain_names": "yes"}, "plain_names"),
        ({"manifest": 1}, "manifest"),
        ({"oops": 1}, "oops"),
    ],
)
def test_form_is_refused_with_the_field_that_is_wrong(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        export(**changes)

    assert field == caught.value.field


def test_secrets_of_keys_go_when_a_role_replaces_them() -> None:
    saved = export(destination={"access_key": "ASIAEXAMPLE", "session_token": "token"})
    form = {"bucket": "raw-data", "region": "eu-west-1", "type": "s3", "role_arn": ROLE}

    value = SecretStore([generate_key()]).from_form({"data": "clicks", "destination": form}, Export, saved)

    value.check(allow_private=False)
    assert isinstance(value.destination, S3Config)
    assert value.has_role
    assert not saved.has_role
    assert ("", "") == (value.destination.secret_key.reveal(), value.destination.session_token.reveal())


def test_default_is_every_fifteen_minutes() -> None:
    assert schedule_of("shop.clicks", 900) == export().schedule("shop", "clicks")


def test_seconds_take_precedence_over_minutes() -> None:
    assert schedule_of("shop.clicks", 2.5) == export(frequency=5, frequency_s=2.5).schedule("shop", "clicks")


def test_export_becomes_a_job_of_the_domain() -> None:
    value = export(affiliates=[4], advertisers=[ADVERTISER], destination={"directory": "/raw//clicks/"})

    job = job_of(ConfigEntry("shop", "clicks", value, 7), PLATFORM, FORMATS)

    assert ("shop", "clicks", 7) == (job.app_key, job.export_id, job.revision)
    assert ((4,), (ADVERTISER.lower(),)) == (job.content.selection.affiliates, job.content.selection.advertisers)
    assert ("raw/clicks", "s3 raw-data raw/clicks") == (job.directory, job.location)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, "amazonaws.com raw-data"),
        ({"region": "us-east-1"}, "amazonaws.com raw-data"),
        ({"region": "cn-north-1"}, "amazonaws.com.cn raw-data"),
        ({"endpoint_url": "https://s3.eu-west-1.amazonaws.com/"}, "amazonaws.com raw-data"),
        ({"endpoint_url": "https://S3.Example.com"}, "s3.example.com raw-data"),
        ({"endpoint_url": "https://s3.example.com:443/"}, "s3.example.com raw-data"),
        ({"endpoint_url": "https://s3.example.com:9000"}, "s3.example.com:9000 raw-data"),
    ],
)
def test_bucket_is_the_same_place_however_its_endpoint_is_written(changes: dict[str, Any], place: str) -> None:
    folder = export(destination=changes | {"directory": "/raw//clicks/"}).folder("shop")

    assert Folder(place, "raw/clicks") == folder


def test_folders_of_the_gateway_are_an_apps_own() -> None:
    value = Export(data="clicks", destination=GatewayConfig(directory="clicks"))

    assert value.folder("shop") != value.folder("rival")


@pytest.mark.parametrize("directory", ["", "a/b", "..", "a b", "a\n"])
def test_directory_of_the_gateway_is_one_plain_name(directory: str) -> None:
    form = {"data": "clicks", "destination": {"type": "gateway", "directory": directory}}

    with pytest.raises(InvalidError) as caught:
        SecretStore([generate_key()]).from_form(form, Export, None)

    assert "destination.directory" == caught.value.field


def test_name_on_the_gateway_is_valid_on_every_file_system() -> None:
    assert "clicks_2026-11-22_02-45-00.csv.gz" == destination_file_name("clicks/2026/11/22/2026-11-22 02:45:00.csv.gz")
    assert ".millrace-probe" == destination_file_name("clicks/.millrace-probe")
    events = "currents/dataexport.m.Gateway.integration.e/event_type={}/date=2026-11-22-02/1/m/d+0+0000000001.avro"
    assert ["currents_users.A_d+0+0000000001.avro", "currents_users.B_d+0+0000000001.avro"] == [
        destination_file_name(events.format(name)) for name in ("users.A", "users.B")
    ]
