"""Dependencies of destinations on the platform."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from shared.objects.config import StoreLimits
from shared.objects.store import ObjectStore


class Platform(Struct, frozen=True, kw_only=True):
    """
    Resources of the platform for destinations.

    `allow_private` allows endpoints in private networks. `open_reports` opens the platform's store of reports.
    """

    allow_private: bool
    open_reports: Callable[[StoreLimits], AbstractAsyncContextManager[ObjectStore]]
