"""
The external id of each app: `<app>:` and 128 random bits, made when it is first asked for and the same from then on.

A customer's trust policy demands it, so no other tenant can have us assume the customer's role ("confused deputy", AWS
IAM user guide). It begins with the app's name, so connectors of hooks and storage take it as well
(`shared.aws.roles.check_role`). It is no secret. It lies signed in `CONFIG`, where a publisher cannot replace it.
"""

import secrets
from typing import Final

from msgspec import Struct

from shared.config.registry import Kind, Registry, View
from shared.errors import ConflictError, NotFoundError

RANDOM_BYTES: Final = 16


class ExternalId(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The external id of one app, as it is stored."""

    external_id: str


EXTERNAL_IDS: Final = Kind(prefix="external_ids", type=ExternalId, fixed_id="")


class ExternalIds:
    """The external ids of all apps. Methods raise `UnavailableError` while NATS does not answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: View[ExternalId] = registry.view(EXTERNAL_IDS)

    async def of_app(self, app_key: str) -> str:
        """The app's external id. Of several callers and replicas that make it at once, one's is kept."""
        if (known := self._known.get(app_key)) is not None:
            return known.value.external_id
        try:
            return (await self._registry.get(EXTERNAL_IDS, app_key)).value.external_id
        except NotFoundError:
            made = ExternalId(external_id=f"{app_key}:{secrets.token_hex(RANDOM_BYTES)}")
        try:
            return (await self._registry.put(EXTERNAL_IDS, app_key, "", made, expect_revision=0)).value.external_id
        except ConflictError:
            return (await self._registry.get(EXTERNAL_IDS, app_key)).value.external_id

    async def remove(self, app_key: str) -> None:
        """Remove the id together with its app. Raises `NotFoundError` where there is none."""
        await self._registry.delete(EXTERNAL_IDS, app_key)
