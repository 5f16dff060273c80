"""Routes of connectors. They parse, call and answer; no rules."""

from collections.abc import Iterator
from typing import Any

import msgspec

from hooks.config import CONNECTORS
from hooks.matching.hook import StreamName
from hooks.sinks import SINKS
from hooks.sinks.port import SinkFactory
from hooks.state import State
from shared.config.form import form_type
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.http.resources import resource_routes
from shared.http.routes import Route
from shared.http.server import Call

FORM_DOC = """\
    The form of Test Connection: a field that is left out has its saved value.

    With `stream_name` the stream is tested as well, and with `test_record` one marked record is put into it.
    """


async def check_connector(call: Call[State], value: Any, _: Any) -> Any:
    """Check a connector before it is saved."""
    return call.state.sinks.check(call.app_key, value)


def _routes(sink: type[SinkFactory], connector: str) -> Iterator[Route]:
    kind = CONNECTORS[connector]
    name = f"{kind.type.__name__.removesuffix('Config')}Form"
    form = form_type(name, kind.type, FORM_DOC, stream_name=StreamName, test_record=(bool, False))

    async def test_connector(call: Call[State]) -> ConnectionReport:
        """Test Connection, of the values of the form over the saved ones."""
        values = msgspec.to_builtins(decode(await call.read_json() or b"{}", form))
        stream_name, test_record = values.pop("stream_name", None), values.pop("test_record", False)
        return await call.state.sinks.test_connector(
            call.app_key, connector, values, stream_name, test_record=test_record
        )

    path = f"/v1/apps/{{app_key}}/connectors/{connector}"
    yield from resource_routes(kind, path, f"the {sink.title} connector", check=check_connector)
    yield Route(
        "POST",
        f"{path}/test",
        test_connector,
        "Test Connection on the posted values; a value that is left out is the saved one",
        body=form,
        reads_body=True,
        reply=ConnectionReport,
    )


ROUTES: tuple[Route, ...] = tuple(
    route for sink in SINKS.values() if sink.connector is not None for route in _routes(sink, sink.connector)
)
