"""NATS requests: decode -> call -> reply. No rules."""

from typing import Any, Literal

from msgspec import Struct

from hooks.config import read_kinesis
from hooks.matching.hook import StreamName
from hooks.state import State
from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.messaging.endpoints import Endpoint


class ProbeConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Ask for a Test Connection by NATS. What `config` leaves out, a secret it masks with `***`, is the saved one's.

    With `stream_name` the stream is looked at as well, and with `test_record` one marked record is put into it.
    """

    app_key: str
    kind: Literal["kinesis"] = "kinesis"
    config: dict[str, Any] = {}
    stream_name: StreamName | None = None
    test_record: bool = False


async def test_connector(state: State, request: ProbeConnector) -> ConnectionReport:
    """`hooks.connector.test`: Test Connection on the saved connector, or on a form's values."""
    subjects.check_app_key(request.app_key)
    allow_private = state.allow_private_endpoints
    config = await read_kinesis(state.registry, request.app_key, request.config, allow_private=allow_private)
    return await state.test_connector(config, request.stream_name, request.test_record)


ENDPOINTS = (Endpoint(subject=subjects.connector_test("hooks"), request=ProbeConnector, handler=test_connector),)
