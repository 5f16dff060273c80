"""Handlers of NATS requests. They decode, call and reply; no rules."""

from typing import Any

from msgspec import Struct

from hooks import SERVICE_NAME
from hooks.matching.hook import StreamName
from hooks.sinks import ConnectorName
from hooks.state import State
from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.messaging.endpoints import Endpoint


class ProbeConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A request for Test Connection. A field that `config` leaves out, or a secret that it masks with `***`, has the saved
    value.

    With `stream_name` the stream is tested as well, and with `test_record` one marked record is put into it.
    """

    app_key: str
    kind: ConnectorName = "kinesis"
    config: dict[str, Any] = {}
    stream_name: StreamName | None = None
    test_record: bool = False


async def test_connector(state: State, request: ProbeConnector) -> ConnectionReport:
    """`hooks.connector.test`: Test Connection of the saved connector, or of a form's values."""
    subjects.check_app_key(request.app_key)
    return await state.sinks.test_connector(
        request.app_key, request.kind, request.config, request.stream_name, test_record=request.test_record
    )


ENDPOINTS = (Endpoint(subject=subjects.connector_test(SERVICE_NAME), request=ProbeConnector, handler=test_connector),)
