"""Handlers of NATS requests: decode, call, reply. No rules."""

from typing import Any

from msgspec import Struct

from exporter import SERVICE_NAME
from exporter.state import State
from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.messaging.endpoints import Endpoint


class ProbeExport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Request for Test Connection of a saved export, with the values of `config` in place of the saved ones.

    A secret that `config` omits, or masks with `***`, is the saved one.
    """

    app_key: str
    id: str
    config: dict[str, Any] = {}


async def test_connector(state: State, request: ProbeExport) -> ConnectionReport:
    """`exporter.connector.test`: Test Connection of a saved export, or of the values of a form."""
    # By NATS only the operator's own programs ask (`shared.contracts.grants`).
    app_key = subjects.check_app_key(request.app_key)
    return await state.test_connection(app_key, subjects.check_name(request.id, "id"), request.config, is_operator=True)


ENDPOINTS = (Endpoint(subject=subjects.connector_test(SERVICE_NAME), request=ProbeExport, handler=test_connector),)
