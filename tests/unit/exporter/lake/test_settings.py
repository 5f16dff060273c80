"""The settings of the lake, and the store that they name."""

import pytest

from exporter.config.settings import ExporterSettings
from shared.errors import InvalidError
from shared.objects.config import AzureStoreConfig, LocalStoreConfig, S3StoreConfig


def test_lake_is_a_folder_of_the_data_directory_unless_another_place_is_named() -> None:
    assert LocalStoreConfig(root="/data/lake") == ExporterSettings(data_dir="/data").lake_store
    assert LocalStoreConfig(root="/lake") == ExporterSettings(exporter_lake_dir="/lake").lake_store


def test_lake_is_in_a_bucket_or_a_container() -> None:
    bucket = ExporterSettings(
        exporter_lake_bucket="events",
        exporter_lake_region="eu-west-1",
        exporter_lake_access_key_id="AKIAEXAMPLE",
        exporter_lake_secret_access_key="a secret",
    )
    container = ExporterSettings(
        exporter_lake_container="events", exporter_lake_account_name="shop", exporter_lake_account_key="a2V5"
    )

    assert isinstance(bucket.lake_store, S3StoreConfig)
    assert ("events", "eu-west-1", "lake") == (
        bucket.lake_store.bucket,
        bucket.lake_store.region,
        bucket.lake_store.prefix,
    )
    assert isinstance(container.lake_store, AzureStoreConfig)
    assert ("events", "shop", "lake") == (
        container.lake_store.container,
        container.lake_store.account_name,
        container.lake_store.prefix,
    )
    locations = {one.lake_location for one in (bucket, container, ExporterSettings())}
    assert 3 == len(locations)
    assert "secret" not in "".join(locations)


def test_bucket_and_container_together_are_refused() -> None:
    settings = ExporterSettings(exporter_lake_bucket="events", exporter_lake_container="events")

    with pytest.raises(InvalidError) as error:
        _ = settings.lake_store

    assert "exporter_lake_container" == error.value.field


def test_lanes_of_a_number_that_does_not_split_the_partitions_are_refused() -> None:
    assert [1, 16] == [ExporterSettings(exporter_lake_shards=shards).lake_shards for shards in (1, 16)]

    with pytest.raises(InvalidError) as error:
        _ = ExporterSettings(exporter_lake_shards=3).lake_shards

    assert "exporter_lake_shards" == error.value.field
