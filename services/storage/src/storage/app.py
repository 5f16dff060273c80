"""
The composition root: opens the parts and wires them. The only constructor. No logic.
"""

from functools import partial

import aiohttp

from shared import subjects
from shared.aws import AwsClients
from shared.connection_test import DEADLINE_S
from shared.service import Mesh, Service
from storage.config import AMAZON_STORAGE, storage_config
from storage.handlers import ENDPOINTS
from storage.image_work import ImageWork
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.amazon_probe import test_connection
from storage.providers.local import LocalConfig
from storage.providers.selection import Selection
from storage.routes import ROUTES
from storage.state import State
from storage.uploads import Uploads
from storage.widgets import Widgets


async def build(mesh: Mesh, *, test_deadline_s: float = DEADLINE_S) -> State:
    """Open everything. `test_deadline_s` shortens Test Connection, for tests."""
    config = storage_config(mesh.settings, public_url=mesh.public_url)
    allow_private = config.allow_private_endpoints
    local_config = LocalConfig(objects=config.objects_dir, names=config.names_dir, base_url=f"{config.public_url}/cdn")
    local = await mesh.enter(local_config.open())
    mesh.ping("local_objects", local.ping)
    open_amazon = partial(AmazonStorageConfig.open, allow_private=allow_private)
    selection = Selection(connector_of=mesh.registry.view(AMAZON_STORAGE).get, opening=open_amazon, local=local)
    image_work = await mesh.enter(ImageWork())
    uploads = Uploads(
        provider_of=(await mesh.enter(selection)).of,
        image_work=image_work,
        records=mesh.bucket(subjects.MEDIA),
        bus=mesh.bus,
        metrics=mesh.metrics,
    )
    test_connector = partial(
        test_connection,
        aws=await mesh.enter(AwsClients()),
        http=await mesh.enter(aiohttp.ClientSession()),
        allow_private=allow_private,
        deadline_s=test_deadline_s,
    )
    return State(
        uploads=uploads,
        widgets=Widgets(uploads, image_work),
        local=local,
        registry=mesh.registry,
        test_connector=test_connector,
        allow_private_endpoints=allow_private,
    )


SERVICE = Service(
    name="storage",
    build=build,
    routes=ROUTES,
    endpoints=ENDPOINTS,
    streams=(subjects.OBJECTS, subjects.ALERTS),
    buckets=(subjects.CONFIG, subjects.MEDIA),
    kinds=(AMAZON_STORAGE,),
)
