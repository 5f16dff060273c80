"""
Access of the command line to a mesh as its operator: by the folder of a local mesh, or by `MILLRACE_*`.

The environment wins where it names a NATS server.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from millrace.mesh.folder import MeshFolder
from shared.config.registry import Registry
from shared.config.secret_keys import split_keys
from shared.config.secret_store import SecretStore
from shared.errors import InvalidError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.runtime.retry import Backoff
from shared.runtime.settings import Settings, environment, read_settings
from shared.runtime.telemetry import Metrics

USER = "operator"
WAIT_S = 5.0
ELECTION = Backoff(first_s=0.2, max_s=2.0)
ELECTION_S = 15.0
"""Longest wait for a leader of each stream after a cluster has started or has lost a node."""


class Access(Struct, frozen=True, kw_only=True):
    """Credentials to sign in to NATS as `operator`, and to read and write secrets."""

    nats_url: str
    seed: str
    secret_keys: str
    secret_keys_file: Path | None = None
    """The file that they are from, for messages."""


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--data`, which every verb that uses a local mesh has."""
    parser.add_argument(
        "--data", type=Path, default=Path(".millrace"), metavar="DIR", help="folder of the local mesh [%(default)s]"
    )


def access_of_folder(folder: MeshFolder, nats_url: str) -> Access:
    """Access to the mesh of this folder, whose NATS is at `nats_url`."""
    return Access(
        nats_url=nats_url,
        seed=folder.seeds()[USER],
        secret_keys=folder.secret_keys(),
        secret_keys_file=folder.secret_keys_file,
    )


def find_access(data: Path) -> Access:
    """
    Access to the mesh that the environment names, else to the one of the folder.

    Raises:
        NotFoundError: No mesh runs there.
        InvalidError: A setting is wrong or missing.
    """
    if not any(environment(("MILLRACE_NATS_URL",)).values()):
        folder = MeshFolder(data)
        return access_of_folder(folder, folder.addresses().nats)
    settings = read_settings(Settings)
    if not settings.nats_seed:
        raise InvalidError("expected the file with the seed of the NATS user operator", field="MILLRACE_NATS_SEED_FILE")
    file = Path(settings.secret_keys_file) if settings.secret_keys_file else None
    return Access(
        nats_url=settings.nats_url, seed=settings.nats_seed, secret_keys=settings.secret_keys, secret_keys_file=file
    )


def open_bus(access: Access) -> AbstractAsyncContextManager[Bus]:
    """NATS as the operator. Entering raises `UnavailableError` or `DeniedError`."""
    return connect(USER, access.nats_url, seed=access.seed, metrics=Metrics(), wait_s=WAIT_S)


@asynccontextmanager
async def open_registry(access: Access) -> AsyncIterator[Registry]:
    """The configuration of the mesh. Raises `UnavailableError` or `DeniedError`."""
    secrets = SecretStore(split_keys(access.secret_keys), access.secret_keys_file)
    async with open_bus(access) as bus:
        yield Registry(bus, secrets, service=USER, relist_s=30)
