"""What `build` gives: the parts that routes and handlers call, and the one thing that both of them do."""

import secrets
from typing import Any

import msgspec
from msgspec import Struct

from exporter.config import EXPORTS, Export
from exporter.connection_test import ProbeConnectorReply, probe_store
from exporter.history import History
from exporter.lanes import Lanes
from exporter.sinks.objects import PROBE_LIMITS
from shared.errors import NotFoundError
from shared.registry import Registry, View


class State(Struct, frozen=True, kw_only=True):
    """The running service."""

    lanes: Lanes
    history: History
    registry: Registry
    exports: View[Export]
    allow_private_endpoints: bool

    async def test_connection(self, app_key: str, export_id: str, form: dict[str, Any]) -> ProbeConnectorReply:
        """
        Try the destination of an export, saved or not.

        Raises:
            InvalidError: A field of the form is wrong; names it.
            NotFoundError: The form is empty and nothing is saved.
        """
        export = await self._read(app_key, export_id, form)
        folder, name = export.destination.folder, f".millrace-probe-{secrets.token_hex(8)}"
        return await probe_store(
            lambda: export.destination.open(allow_private=self.allow_private_endpoints, limits=PROBE_LIMITS),
            f"{folder}/{name}" if folder else name,
        )

    async def _read(self, app_key: str, export_id: str, form: dict[str, Any]) -> Export:
        """The values of the form over the saved ones; a secret that is left out or masked is the saved one."""
        try:
            saved = (await self.registry.get(EXPORTS, app_key, export_id)).value
        except NotFoundError:
            if not form:
                raise
            saved = None
        shown = msgspec.json.decode(self.registry.secrets.encode_masked(saved)) if saved is not None else {}
        export = self.registry.secrets.from_form(shown | form, Export, saved)
        export.check(allow_private=self.allow_private_endpoints)
        return export
