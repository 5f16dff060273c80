"""NATS requests: decode -> call -> reply. No rules."""

from exporter.connection_test import ProbeConnector, ProbeConnectorReply
from exporter.state import State
from shared import subjects
from shared.bus import Endpoint


async def test_connector(state: State, request: ProbeConnector) -> ProbeConnectorReply:
    """`exporter.connector.test`: Test Connection of a saved export, or of a form's values."""
    app_key = subjects.check_app_key(request.app_key)
    return await state.test_connection(app_key, subjects.check_name(request.id, "id"), request.config)


ENDPOINTS = (Endpoint(subject=subjects.connector_test("exporter"), request=ProbeConnector, handler=test_connector),)
