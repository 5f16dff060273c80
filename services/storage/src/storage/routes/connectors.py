"""Routes of connectors, with Test Connection, and of the status of providers."""

from typing import Any

from msgspec import Struct

from shared.config.registry import Kind
from shared.contracts.connection_report import ConnectionReport
from shared.http.resources import read_form, resource_routes
from shared.http.routes import Route
from shared.http.server import Call
from storage.config import AMAZON_STORAGE, AZURE_STORAGE
from storage.placement.selection import ProviderStatus
from storage.state import State


class ProviderStatuses(Struct, frozen=True, kw_only=True):
    """The status of the providers of an app, in the order of precedence."""

    providers: tuple[ProviderStatus, ...]


async def get_providers(call: Call[State]) -> ProviderStatuses:
    """The status of the providers of an app."""
    return ProviderStatuses(providers=call.state.selection.statuses(call.app_key))


def _connector_routes(kind: Kind[Any], name: str, title: str) -> tuple[Route, ...]:
    """The routes of one connector: configuration and Test Connection."""

    async def check(call: Call[State], value: Any, _: Any) -> Any:
        return call.state.connectors[name].check(value, app_key=call.app_key)

    async def test(call: Call[State]) -> ConnectionReport:
        """Test Connection of the values of the form or, without a body, of the saved ones."""
        if await call.read_json():
            config = await read_form(kind, call)
        else:
            config = (await call.registry.get(kind, call.app_key)).value
        return await call.state.connectors[name].test(config, app_key=call.app_key)

    path = f"/v1/apps/{{app_key}}/connectors/{name}"
    return (
        *resource_routes(kind, path, f"the {title} connector", check=check),
        Route(
            "POST",
            f"{path}/test",
            test,
            "Test Connection on the posted values, or on the saved ones when there is no body",
            body=kind.type,
            reads_body=True,
            body_required=False,
            reply=ConnectionReport,
        ),
    )


ROUTES: tuple[Route, ...] = (
    Route(
        "GET", "/v1/apps/{app_key}/providers", get_providers, "Show the status of the providers", reply=ProviderStatuses
    ),
    *_connector_routes(AMAZON_STORAGE, "amazon-storage", "Amazon Storage"),
    *_connector_routes(AZURE_STORAGE, "azure-storage", "Azure Storage"),
)
