"""The type of the fixture `run_service`, and the settings of its services. No test lives here."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from msgspec import structs

from shared.contracts.services import SERVICES
from shared.runtime.settings import Settings
from shared.service import RunningService, Service

RunService = Callable[[Service], AbstractAsyncContextManager[RunningService]]
"""Runs a service inside the test, for as long as the block."""


def settings_of(service: Service, settings: Settings) -> Settings:
    """Return settings of the service's own type, with free ports; `settings` as they are where they have this type."""
    if isinstance(settings, service.settings):
        return settings
    ports: dict[str, Any] = {
        f"{listener}_port": 0 for entry in SERVICES if entry.name == service.name for listener in entry.ports
    }
    return service.settings(**structs.asdict(settings), **ports)
