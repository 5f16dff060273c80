"""Settings of storage."""

from pathlib import Path

import pytest

from shared.errors import InvalidError
from shared.runtime.settings import read_settings
from storage.config import StorageSettings, storage_config


def test_settings_of_storage_come_from_their_variables() -> None:
    settings = read_settings(
        StorageSettings, {"MILLRACE_STORAGE_LOCAL": "false", "MILLRACE_STORAGE_THUMBNAILS_PX": "64,320"}
    )

    assert StorageSettings(storage_local=False, storage_thumbnails_px="64,320") == settings
    assert (64, 320) == storage_config(settings, public_url="http://cdn").limits.thumbnails_px


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MILLRACE_STORAGE_FILE_BYTES", "0"),
        ("MILLRACE_STORAGE_MEMORY_BYTES", "1000"),
        ("MILLRACE_STORAGE_THUMBNAILS_PX", "320,"),
        ("MILLRACE_STORAGE_AVIF", "perhaps"),
        ("MILLRACE_STORAGE_LOCALLY", "true"),
    ],
)
def test_a_wrong_setting_of_storage_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(InvalidError) as refused:
        read_settings(StorageSettings, {variable: value})

    assert refused.value.field == variable


@pytest.mark.parametrize("sizes", ["8", "4096", "64,64"])
def test_sizes_of_thumbnails_that_make_no_sense_are_refused_by_name(sizes: str) -> None:
    with pytest.raises(InvalidError, match="expected different sizes") as refused:
        storage_config(StorageSettings(storage_thumbnails_px=sizes), public_url="http://cdn")

    assert refused.value.field == "MILLRACE_STORAGE_THUMBNAILS_PX"


def test_directories_of_storage_lie_in_the_data_directory() -> None:
    config = storage_config(StorageSettings(data_dir="/data"), public_url="http://cdn/")

    assert (Path("/data/objects"), "http://cdn") == (config.objects_dir, config.public_url)
