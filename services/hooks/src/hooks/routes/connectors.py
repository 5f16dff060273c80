"""HTTP for connectors: parse -> call -> answer. No rules."""

import msgspec
from msgspec import Struct

from hooks.config import KINESIS, read_kinesis
from hooks.matching.hook import StreamName
from hooks.sinks.kinesis.sink import KinesisConfig
from hooks.state import State
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.http.resources import resource_routes
from shared.http.routes import Route
from shared.http.server import Call


class KinesisForm(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    What Test Connection is asked with: values of the form, each left-out one as it is saved.

    With `stream_name` the stream is looked at as well, and with `test_record` one marked record is put into it.
    """

    region: str | None = None
    api_key: str | None = None
    secret_key: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    endpoint_url: str | None = None
    active: bool | None = None
    stream_name: StreamName | None = None
    test_record: bool = False


async def test_kinesis(call: Call[State]) -> ConnectionReport:
    """Test Connection, on the values of the form over the saved ones."""
    form = decode(await call.request.read() or b"{}", KinesisForm)
    values = msgspec.to_builtins(msgspec.structs.replace(form, stream_name=None, test_record=False))
    allow_private = call.state.allow_private_endpoints
    config = await read_kinesis(call.registry, call.app_key, values, allow_private=allow_private)
    return await call.state.test_connector(config, form.stream_name, form.test_record)


async def check_kinesis(call: Call[State], value: KinesisConfig, _: KinesisConfig | None) -> KinesisConfig:
    """What a connector must be before it is saved."""
    return value.checked(allow_private=call.state.allow_private_endpoints, app_key=call.app_key)


ROUTES: tuple[Route, ...] = (
    *resource_routes(KINESIS, "/v1/apps/{app_key}/connectors/kinesis", "the Kinesis connector", check=check_kinesis),
    Route(
        "POST",
        "/v1/apps/{app_key}/connectors/kinesis/test",
        test_kinesis,
        "Test Connection on the posted values, each left-out one as it is saved",
        body=KinesisForm,
        reads_body=True,
        reply=ConnectionReport,
    ),
)
