"""What a sink needs of the platform that it runs on."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from shared.objects.config import StoreLimits
from shared.objects.store import ObjectStore


class Platform(Struct, frozen=True, kw_only=True):
    """`allow_private` lets endpoints into our own network; `open_reports` opens the platform's store of reports."""

    allow_private: bool
    open_reports: Callable[[StoreLimits], AbstractAsyncContextManager[ObjectStore]]
