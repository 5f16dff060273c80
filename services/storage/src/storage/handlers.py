"""Handlers of NATS requests: decode, call, reply. No rules."""

from typing import Any, Literal

from msgspec import Struct

from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import ResolveMedia, StoreMedia, StoreMediaReply
from shared.messaging.endpoints import Endpoint
from storage import SERVICE_NAME
from storage.content.body import body_of
from storage.state import State


class ProbeStorageConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Request for Test Connection of the saved connector, with the values of `config` in place of the saved ones.

    A value that `config` omits, or a secret that it masks with `***`, is the saved one.
    """

    app_key: str
    kind: Literal["amazon-storage", "azure-storage"] = "amazon-storage"
    config: dict[str, Any] | None = None


async def store_media(state: State, request: StoreMedia) -> StoreMediaReply:
    """`storage.media.store`: store a body that fits into one message."""
    subjects.check_app_key(request.app_key)
    body = body_of(request.content)
    return await state.uploads.store(request.app_key, request.kind, body, file_name=request.file_name)


async def resolve_media(state: State, request: ResolveMedia) -> StoreMediaReply:
    """`storage.media.resolve`: the location of an object."""
    return await state.uploads.resolve(request.app_key, request.id)


async def test_connector(state: State, request: ProbeStorageConnector) -> ConnectionReport:
    """`storage.connector.test`: Test Connection of the saved connector, or of the values of a form."""
    parts = state.connectors[request.kind]
    config = await state.registry.form_over_saved(parts.kind, request.app_key, request.config or {})
    return await parts.test(config, app_key=request.app_key)


ENDPOINTS = (
    Endpoint(subject=subjects.STORE_MEDIA, request=StoreMedia, handler=store_media),
    Endpoint(subject=subjects.RESOLVE_MEDIA, request=ResolveMedia, handler=resolve_media),
    Endpoint(subject=subjects.connector_test(SERVICE_NAME), request=ProbeStorageConnector, handler=test_connector),
)
