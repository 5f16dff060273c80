"""
`millrace provision`: make the streams, buckets and durable consumers of the mesh, and put right what differs.

`up` and `demo` do it by themselves. It signs in to NATS as `provision`, whose right is that of the whole account; no
service has it.
"""

import argparse
from pathlib import Path

from msgspec import structs

from millrace.mesh.access import add_data_argument
from millrace.mesh.folder import MeshFolder
from millrace.terminal.event_loop import run_async
from shared.contracts.consumers import CONSUMERS
from shared.contracts.grants import PROVISION
from shared.contracts.streams import BUCKETS, STREAMS
from shared.errors import InvalidError
from shared.messaging.provisioning.making import provision_mesh
from shared.runtime.settings import Settings, environment, read_settings

WAIT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace provision`."""
    add_data_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Provision, and print a line for each thing that was changed."""
    return run_async(_run(find_settings(args.data)))


def find_settings(data: Path) -> Settings:
    """
    Settings to provision with: of the mesh that the environment names, else of the one of the folder.

    Raises:
        NotFoundError: No mesh runs there.
        InvalidError: A setting is wrong or missing.
    """
    settings = read_settings(Settings)
    if any(environment(("MILLRACE_NATS_URL",)).values()):
        if not settings.nats_seed:
            field = "MILLRACE_NATS_SEED_FILE"
            raise InvalidError(f"expected the file with the seed of the NATS user {PROVISION}", field=field)
        return settings
    folder = MeshFolder(data)
    nats_url = folder.addresses().nats
    seed = folder.seeds()[PROVISION]
    replicas = 3 if "," in nats_url else 1
    return structs.replace(settings, nats_url=nats_url, nats_seed=seed, nats_replicas=replicas)


async def _run(settings: Settings) -> int:
    changed = await provision_mesh(settings, wait_s=WAIT_S)
    for one in changed:
        print(one)
    count = f"{len(STREAMS)} streams, {len(BUCKETS)} buckets and {len(CONSUMERS)} consumers"
    print(f"{count} are as this release needs them; {len(changed)} changed")
    return 0
