"""
`millrace app`: what an app has configured in every service, and its deletion.

A service knows its own kinds alone, so only here is an app whole. Tables of kinds: `millrace.configuration.file`.
"""

import argparse
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from millrace.configuration.file import APP_SERVICE, COLLECTIONS, CONNECTORS, ORDER
from millrace.mesh.access import add_data_argument
from millrace.mesh.service_api import ServiceApi, add_url_argument, find_urls, open_api, read_token
from millrace.terminal.console import Console
from millrace.terminal.event_loop import run_async
from shared.contracts.subjects import check_app_key
from shared.errors import ConflictError, InvalidError, NotFoundError

STAYS = (
    "Deleted too: what the lake of exporter holds of the app, and its external id. Not deleted: stored objects,"
    " exported files, events and dead letters until their time is over, profiles, and tokens (`millrace token revoke`)."
)

EXPORTER = "exporter"


class OwnedResource(Struct, frozen=True):
    """One thing that the app has configured: its kind as the configuration file names it, its service and its path."""

    kind: str
    service: str
    path: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="list what the app has configured, in all services")
    delete = actions.add_parser("delete", help="delete all of it; without --yes only show it")
    delete.add_argument("--yes", action="store_true", help="really delete")
    for action in (show, delete):
        action.add_argument("app", metavar="APP", help="the app's key")
        action.add_argument(
            "--token-file", type=Path, metavar="FILE", help="an operator's token [the local mesh's own]"
        )
        add_data_argument(action)
        add_url_argument(action)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    app_key = check_app_key(args.app)
    console = Console()
    async with open_api(find_urls(args.url, args.data), read_token(args.token_file, args.data)) as api:
        found = await find_resources(api, app_key)
        if not found:
            raise NotFoundError(f"nothing is configured for {app_key}")
        console.table(("kind", "service", "path"), [(one.kind, one.service, one.path) for one in found])
        if args.action == "delete" and args.yes:
            deleted = await delete_resources(api, found)
            # Also where it shows nothing yet: events of the last minutes would be written into it.
            await api.call(EXPORTER, "DELETE", f"/v1/apps/{app_key}/lake")
            await _remove_external_id(api, app_key)
            console.print_line(f"{deleted} deleted. {STAYS}")
        elif args.action == "delete":
            console.print_line(f"{len(found)} would be deleted; `--yes` deletes them. {STAYS}")
    return 0


async def find_resources(api: ServiceApi, app_key: str) -> list[OwnedResource]:
    """
    Everything that the app has configured, what refers to others first: in the order in which it can be deleted.

    Raises:
        UnavailableError, InvalidError: A service cannot be asked. Nothing is known to be whole then.
    """
    root = f"/v1/apps/{app_key}"
    found = await _if_there(api, OwnedResource("lake", EXPORTER, f"{root}/lake"))
    for table in reversed(ORDER):
        if table == "":
            found += await _if_there(api, OwnedResource("app", APP_SERVICE, root))
        elif table == "connectors":
            for connector, service in CONNECTORS.items():
                one = OwnedResource(f"connectors.{connector}", service, f"{root}/connectors/{connector}")
                found += await _if_there(api, one)
        else:
            service, path = COLLECTIONS[table], f"{root}/{table.replace('_', '-')}"
            items = (await api.call(service, "GET", path))["items"]
            found += [OwnedResource(table, service, f"{path}/{item['id']}") for item in items]
    return found


async def _remove_external_id(api: ServiceApi, app_key: str) -> None:
    """Remove what the first look at it makes: so it is not looked for."""
    with suppress(NotFoundError):
        await api.call(EXPORTER, "DELETE", f"/v1/apps/{app_key}/external-id")


async def _if_there(api: ServiceApi, resource: OwnedResource) -> list[OwnedResource]:
    try:
        await api.call(resource.service, "GET", resource.path)
    except NotFoundError:
        return []
    except (InvalidError, ConflictError):
        # It is there, and cannot be shown.
        pass
    return [resource]


async def delete_resources(api: ServiceApi, resources: list[OwnedResource]) -> int:
    """Delete them in their order, and return how many were still there."""
    deleted = 0
    for resource in resources:
        try:
            await api.call(resource.service, "DELETE", resource.path)
        except NotFoundError:
            continue
        deleted += 1
    return deleted
