"""
Write files into a directory below one that the operator has set, for programs on the same machine or the same shared
file system.

Configuration: `MILLRACE_EXPORTER_LOCAL_DIR` names the outer directory, which has to exist; without it there are no
local destinations. Only an operator's token may create or change an export that has one: it fills the operator's disk.
Implementation: `shared.objects.local_files`, by way of `exporter.destinations.store_destination`. A file appears under
its name whole, by a link that fails where there is one, and it and its directory are synced before that counts.
Considerations: a file has no content type. Directories have no leading dot, which the store keeps for itself. All
replicas have to see the same directory.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from exporter.destinations.platform import Platform
from exporter.destinations.store_destination import DIRECTORY_BYTES, FILE_LIMITS, StoreDestination, folder_of
from exporter.pipeline.ports import Operator
from shared.errors import InvalidError, UnavailableError
from shared.objects.config import LocalStoreConfig, StoreLimits

DIRECTORY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99})*")
SETTING: Final = "MILLRACE_EXPORTER_LOCAL_DIR"


class LocalFolderConfig(Struct, tag="local", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A directory below `MILLRACE_EXPORTER_LOCAL_DIR`. Only an operator's token may create or change it."""

    directory: Annotated[str, Meta(max_length=DIRECTORY_BYTES)] = ""

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
        return "Local"

    @property
    def folder(self) -> str:
        """The directory as in keys."""
        return folder_of(self.directory)

    def place(self, app_key: str) -> str:
        """The outer directory, as claims of folders name it: the same for every app."""
        return "local"

    def location(self, app_key: str) -> str:
        """The location of the files, the same for every spelling and every app."""
        return f"local {self.folder}"

    def check(self, *, allow_private: bool) -> None:
        """
        Check what the types do not express.

        Raises:
            InvalidError: The directory leads elsewhere, or is the outer one itself.
        """
        if not DIRECTORY.fullmatch(self.folder):
            message = "expected folders between slashes, of letters, digits, '.', '_' and '-', none beginning with '.'"
            raise InvalidError(message, field="destination.directory")

    @asynccontextmanager
    async def open(
        self, app_key: str, platform: Platform, *, limits: StoreLimits = FILE_LIMITS
    ) -> AsyncIterator[StoreDestination]:
        """
        Open the destination.

        Raises:
            InvalidError: The operator has set no outer directory.
            UnavailableError: It does not exist, as where its file system is not mounted.
        """
        if not platform.local_dir:
            message = f"this mesh has no local destinations: its operator has not set {SETTING}"
            raise InvalidError(message, field="destination.type")
        if not await asyncio.to_thread(Path(platform.local_dir).is_dir):
            raise UnavailableError(f"the directory of {SETTING} does not exist: is its file system mounted?")
        async with LocalStoreConfig(root=platform.local_dir).open() as store:
            yield StoreDestination(store)
