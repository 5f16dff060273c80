"""The result of `build`: the parts that routes and handlers call. No rules."""

from typing import Any, Protocol

from msgspec import Struct

from shared.config.registry import Kind, Registry
from shared.contracts.connection_report import ConnectionReport
from storage.content.body import Bodies
from storage.placement.selection import ProviderSelection
from storage.providers.local import LocalProvider
from storage.uploads.records import Records
from storage.uploads.upload import Uploads
from storage.widgets.widget import Widgets


class ConnectorCheck(Protocol):
    """Checks a connector before it is saved. Returns it normalized, or raises `InvalidError`."""

    def __call__(self, config: Any, *, app_key: str) -> Any: ...


class ConnectorTest(Protocol):
    """Tests a connector, saved or not."""

    async def __call__(self, config: Any, *, app_key: str) -> ConnectionReport: ...


class ConnectorParts(Struct, frozen=True, kw_only=True):
    """The operations on connectors of one kind."""

    kind: Kind[Any]
    check: ConnectorCheck
    test: ConnectorTest


class State(Struct, frozen=True, kw_only=True):
    """
    The running service.

    `local` serves the objects of the local directory, even where no new ones are stored there. The keys of `connectors`
    are the names of providers.
    """

    uploads: Uploads
    widgets: Widgets
    records: Records
    bodies: Bodies
    selection: ProviderSelection
    local: LocalProvider
    registry: Registry
    connectors: dict[str, ConnectorParts]
    widget_bytes: int
