"""
Report folders of apps, which exporter writes and ftp-gateway shows as `/reports`: `reports/<app>/<name>` in the
platform's bucket, or `<app>/<name>` in a directory of its own. No other file spells these keys.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared.config.secret import Secret
from shared.contracts.subjects import APP_KEY, check_app_key
from shared.objects.config import USUAL, LocalStoreConfig, S3StoreConfig, StoreLimits
from shared.objects.keys import check_key
from shared.objects.store import ObjectStore
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings

PREFIX = "reports"
MAX_NAME_BYTES = 200


@asynccontextmanager
async def open_reports(
    settings: Settings, outgoing: Outgoing, limits: StoreLimits = USUAL
) -> AsyncIterator[ObjectStore]:
    """The store of all apps' reports. Asks nothing of it yet. Raises `InvalidError` when a setting cannot be right."""
    async with _config(settings).open(outgoing, limits, guarded=False) as store:
        yield store


def _config(settings: Settings) -> S3StoreConfig | LocalStoreConfig:
    if not settings.reports_bucket:
        return LocalStoreConfig(root=settings.reports_dir or str(Path(settings.data_dir) / PREFIX))
    return S3StoreConfig(
        bucket=settings.reports_bucket,
        region=settings.reports_region,
        access_key_id=settings.reports_access_key_id,
        secret_access_key=Secret(settings.reports_secret_access_key),
        endpoint_url=settings.reports_endpoint_url or None,
        prefix=PREFIX,
        sse=settings.reports_sse,
        sse_kms_key_id=settings.reports_sse_kms_key_id,
    )


def folder_of_app(app_key: str) -> str:
    """The folder of an app's reports alone."""
    return check_app_key(app_key)


def report_key(app_key: str, name: str) -> str:
    """The key of a report. Raises `InvalidError` for what cannot be a name."""
    return check_key(f"{folder_of_app(app_key)}/{name}")


def is_report(key: str) -> bool:
    """Return whether a key is that of a report: a store may hold other objects."""
    app_key, _, name = key.partition("/")
    return APP_KEY.fullmatch(app_key) is not None and name != "" and "/" not in name
