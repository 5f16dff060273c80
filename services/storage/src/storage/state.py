"""
What `build` gives: the parts that routes and handlers call. No rules.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from shared.connection_test import ConnectionReport
from shared.registry import Registry
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.local import LocalProvider
from storage.uploads import Uploads
from storage.widgets import Widgets


class State(Struct, frozen=True, kw_only=True):
    """
    The running service.

    `local` serves what lies in the local directory. `test_connector` tries a connector, saved or not.
    """

    uploads: Uploads
    widgets: Widgets
    local: LocalProvider
    registry: Registry
    test_connector: Callable[[AmazonStorageConfig], Awaitable[ConnectionReport]]
    allow_private_endpoints: bool
