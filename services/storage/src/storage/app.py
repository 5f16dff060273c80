"""
Construction of the storage service: its parts, in the order of their dependencies. It holds no rules; nothing is
constructed elsewhere.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from shared.aws.clients import AwsClients
from shared.config.registry import Kind
from shared.contracts import streams
from shared.contracts.connection_report import DEADLINE_S
from shared.service import Mesh, Service
from storage import SERVICE_NAME
from storage.config import AMAZON_STORAGE, AZURE_STORAGE, StorageSettings, storage_config
from storage.content.body import Bodies
from storage.handlers import ENDPOINTS
from storage.images.worker_pool import ImageProcessPool
from storage.placement.failover import ProviderHealth
from storage.placement.selection import ConnectorSource, ProviderSelection
from storage.providers import amazon, amazon_probe, azure, azure_probe
from storage.providers.local import LocalConfig
from storage.routes import ROUTES
from storage.state import ConnectorParts, State
from storage.uploads.records import Records
from storage.uploads.upload import Uploads
from storage.widgets.widget import Widgets


async def build(mesh: Mesh, *, test_deadline_s: float = DEADLINE_S) -> State:
    """Open every part. `test_deadline_s` shortens Test Connection, for tests."""
    config = storage_config(mesh.settings_as(StorageSettings), public_url=mesh.public_url)
    allow_private = config.allow_private_endpoints
    local_config = LocalConfig(objects=config.objects_dir, names=config.names_dir, base_url=f"{config.public_url}/cdn")
    local = await mesh.enter(local_config.open())
    if config.local:
        mesh.ping("local_objects", local.ping)
    aws = await mesh.enter(AwsClients(mesh.outgoing, ("s3", "sts"), sts_endpoint_url=config.sts_endpoint_url))
    clock = asyncio.get_running_loop().time
    selection = await mesh.enter(
        ProviderSelection(
            sources={
                amazon.NAME: ConnectorSource(
                    mesh.registry.view(AMAZON_STORAGE).get,
                    partial(amazon.AmazonStorageConfig.open, outgoing=mesh.outgoing, aws=aws),
                ),
                azure.NAME: ConnectorSource(
                    mesh.registry.view(AZURE_STORAGE).get,
                    partial(azure.AzureStorageConfig.open, outgoing=mesh.outgoing, aws=aws),
                ),
            },
            local=local if config.local else None,
            make_health=partial(ProviderHealth, alert=mesh.bus.alert, now=_now, clock=clock),
        )
    )
    mesh.add_degraded(selection.degraded)
    image_pool = await mesh.enter(ImageProcessPool())
    records = Records(mesh.bucket(streams.MEDIA), now=_now)
    uploads = Uploads(
        providers=selection,
        image_pool=image_pool,
        records=records,
        bus=mesh.bus,
        metrics=mesh.metrics,
        limits=config.limits,
        now=_now,
    )

    def parts(kind: Kind[Any], checked: Callable[..., Any], probe: Callable[..., Any]) -> ConnectorParts:
        test = partial(probe, aws=aws, outgoing=mesh.outgoing, allow_private=allow_private, deadline_s=test_deadline_s)
        return ConnectorParts(kind=kind, check=partial(checked, allow_private=allow_private), test=test)

    return State(
        uploads=uploads,
        widgets=Widgets(uploads, max_bytes=config.widget_bytes, max_images=config.widget_images),
        records=records,
        bodies=Bodies(config.uploads_dir, memory_bytes=config.memory_bytes),
        selection=selection,
        local=local,
        registry=mesh.registry,
        connectors={
            amazon.NAME: parts(AMAZON_STORAGE, amazon.checked, amazon_probe.test_connection),
            azure.NAME: parts(AZURE_STORAGE, azure.checked, azure_probe.test_connection),
        },
        widget_bytes=config.widget_bytes,
    )


def _now() -> datetime:
    return datetime.now(UTC)


SERVICE = Service(
    name=SERVICE_NAME,
    build=build,
    settings=StorageSettings,
    routes=ROUTES,
    endpoints=ENDPOINTS,
    streams=(streams.OBJECTS, streams.ALERTS),
    buckets=(streams.CONFIG, streams.MEDIA),
    kinds=(AMAZON_STORAGE, AZURE_STORAGE),
)
