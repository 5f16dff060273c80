"""NATS requests: decode -> call -> reply. No rules."""

from hooks.config import read_kinesis
from hooks.connection_test import ProbeConnector, ProbeConnectorReply
from hooks.state import State
from shared import subjects
from shared.bus import Endpoint


async def test_connector(state: State, request: ProbeConnector) -> ProbeConnectorReply:
    """`hooks.connector.test`: Test Connection on the saved connector, or on a form's values."""
    subjects.check_app_key(request.app_key)
    allow_private = state.allow_private_endpoints
    config = await read_kinesis(state.registry, request.app_key, request.config, allow_private=allow_private)
    return await state.test_connector(config, request.stream_name)


ENDPOINTS = (Endpoint(subject=subjects.connector_test("hooks"), request=ProbeConnector, handler=test_connector),)
