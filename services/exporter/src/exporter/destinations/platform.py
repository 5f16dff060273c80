"""Dependencies of destinations on the platform."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from shared.aws.clients import AwsClients
from shared.objects.config import StoreLimits
from shared.objects.store import ObjectStore
from shared.outgoing.door import Outgoing


class Platform(Struct, frozen=True, kw_only=True):
    """
    Resources of the platform for destinations.

    `outgoing` are the connections of the process. `allow_private` allows endpoints in private networks. `open_reports`
    opens the platform's store of reports. `cluster` and `zone` stand in the names of files of events. `local_dir` is
    the directory of local destinations; without it there are none. `aws` assumes the roles of customers, with what
    `external_id` returns for an app.
    """

    outgoing: Outgoing
    allow_private: bool
    cluster: str = "millrace"
    zone: str = ""
    local_dir: str = ""
    open_reports: Callable[[StoreLimits], AbstractAsyncContextManager[ObjectStore]]
    aws: AwsClients
    external_id: Callable[[str], Awaitable[str]]
