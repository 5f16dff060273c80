"""
Write files into the app's own `/reports` on ftp-gateway, where its customer downloads them by SFTP.

Configuration: `MILLRACE_REPORTS_*`, the same for exporter and ftp-gateway. A customer configures nothing.
Implementation: the platform's store of reports through `shared.objects.app_reports`. Files are created and never
overwritten, as in a bucket. Considerations: `/reports` has no folders, so `clicks/2026/11/22/2026-11-22
02:45:00.csv.gz` becomes `clicks_2026-11-22_02-45-00.csv.gz`, a name that Windows accepts too. Of the folders of events
the type stays, `currents_users.behaviors.Purchase_dataexport.….avro`.
`exporter.destinations.retention` removes the files after `MILLRACE_REPORTS_KEEP_DAYS`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from msgspec import Meta, Struct

from exporter.destinations.platform import Platform
from exporter.destinations.store_destination import FILE_LIMITS, StoreDestination
from exporter.pipeline.ports import Operator
from shared.objects.app_reports import report_key
from shared.objects.config import StoreLimits

TYPE_FOLDER: Final = "event_type="


class GatewayConfig(Struct, tag="gateway", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The app's `/reports` on ftp-gateway. The names of the files begin with `directory`."""

    directory: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]

    @property
    def operator(self) -> Operator:
        """The operator of the store."""
        return "platform"

    @property
    def has_our_keys(self) -> bool:
        """Whether the platform's keys open it."""
        return False

    @property
    def kind_in_names(self) -> str:
        """The kind of destination, as it stands in the names of files."""
        return "Gateway"

    @property
    def folder(self) -> str:
        """The directory as in keys."""
        return self.directory

    def place(self, app_key: str) -> str:
        """The app's `/reports`, as claims of folders name it."""
        return f"gateway {app_key}"

    def location(self, app_key: str) -> str:
        """The location of an app's files. Two apps never share one."""
        return f"gateway {app_key} {self.directory}"

    def check(self, *, allow_private: bool) -> None:
        """Check nothing: the types are enough."""

    @asynccontextmanager
    async def open(
        self, app_key: str, platform: Platform, *, limits: StoreLimits = FILE_LIMITS
    ) -> AsyncIterator[StoreDestination]:
        """Open the destination, without a request to the store."""
        async with platform.open_reports(limits) as store:
            yield StoreDestination(store, key_of=lambda key: report_key(app_key, destination_file_name(key)))


def destination_file_name(key: str) -> str:
    """The name in `/reports` for a key. A name with a leading dot stays as it is: the gateway hides such files."""
    directory, *folders, name = key.split("/")
    if name.startswith("."):
        return name
    # The files of a window of events differ in nothing but their type, and it is a folder.
    types = [folder.removeprefix(TYPE_FOLDER) for folder in folders if folder.startswith(TYPE_FOLDER)]
    return "_".join((directory, *types, name)).replace(" ", "_").replace(":", "-")
