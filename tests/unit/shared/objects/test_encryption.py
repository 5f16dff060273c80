"""The encryption on the server, as operators set it."""

import pytest

from exporter.config.settings import ExporterSettings
from shared.errors import InvalidError
from shared.objects.app_reports import _config
from shared.objects.config import S3StoreConfig
from shared.runtime.settings import Settings, read_settings


def test_reports_are_encrypted_as_the_operator_says() -> None:
    settings = {"MILLRACE_REPORTS_BUCKET": "b", "MILLRACE_REPORTS_SSE": "aws:kms"}

    config = _config(read_settings(Settings, settings | {"MILLRACE_REPORTS_SSE_KMS_KEY_ID": "alias/reports"}))

    assert isinstance(config, S3StoreConfig)
    assert ("aws:kms", "alias/reports") == (config.sse, config.sse_kms_key_id)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"REPORTS_SSE": "aws:kms"}, "REPORTS_SSE_KMS_KEY_ID"),
        ({"REPORTS_SSE_KMS_KEY_ID": "alias/reports"}, "REPORTS_SSE_KMS_KEY_ID"),
        ({"REPORTS_SSE": "aes"}, "REPORTS_SSE"),
        ({"EXPORTER_LAKE_BUCKET": "b", "EXPORTER_LAKE_SSE": "aws:kms"}, "EXPORTER_LAKE_SSE_KMS_KEY_ID"),
    ],
)
def test_settings_without_their_key_are_refused(settings: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        assert read_settings(
            ExporterSettings, {f"MILLRACE_{name}": value for name, value in settings.items()}
        ).lake_store

    assert f"MILLRACE_{field}" == caught.value.field
