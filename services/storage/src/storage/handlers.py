"""
NATS requests: decode -> call -> reply. No rules.
"""

from typing import Any, Literal

from msgspec import Struct

from shared import subjects
from shared.connection_test import ConnectionReport
from shared.endpoints import Endpoint
from shared.errors import NotFoundError
from shared.messages import ResolveMedia, StoreMedia, StoreMediaReply
from storage.config import AMAZON_STORAGE
from storage.state import State
from storage.uploads import content_of


class ProbeConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Ask for a Test Connection by NATS, of the saved connector or of the values in `config`.

    A secret that `config` leaves out, or masks with `***`, is the saved one.
    """

    app_key: str
    kind: Literal["amazon-storage"] = "amazon-storage"
    config: dict[str, Any] | None = None


async def store_media(state: State, request: StoreMedia) -> StoreMediaReply:
    """`storage.media.store`: a body that fits into one message."""
    subjects.check_app_key(request.app_key)
    content = content_of(request.content)
    return await state.uploads.store(request.app_key, request.kind, content, file_name=request.file_name)


async def resolve_media(state: State, request: ResolveMedia) -> StoreMediaReply:
    """`storage.media.resolve`: where an object is."""
    return await state.uploads.resolve(request.app_key, request.id)


async def test_connector(state: State, request: ProbeConnector) -> ConnectionReport:
    """`storage.connector.test`: Test Connection on the saved connector, or on a form's values."""
    try:
        saved = (await state.registry.get(AMAZON_STORAGE, request.app_key)).value
    except NotFoundError:
        if request.config is None:
            raise
        saved = None
    if request.config is None:
        assert saved is not None
        return await state.test_connector(saved)
    return await state.test_connector(state.registry.secrets.from_form(request.config, AMAZON_STORAGE.type, saved))


ENDPOINTS = (
    Endpoint(subject=subjects.STORE_MEDIA, request=StoreMedia, handler=store_media),
    Endpoint(subject=subjects.RESOLVE_MEDIA, request=ResolveMedia, handler=resolve_media),
    Endpoint(subject=subjects.connector_test("storage"), request=ProbeConnector, handler=test_connector),
)
