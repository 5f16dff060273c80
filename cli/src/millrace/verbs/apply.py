"""
`millrace apply FILE.toml`: bring the configuration of apps to what a file says.

Every resource goes to its service twice: as a dry run, so that nothing is changed when one of them is refused, and then
to be stored. `millrace.configuration.file` reads the file.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from millrace.configuration.file import ApplyFile, Resource, read_apply_file
from millrace.mesh.access import add_data_argument
from millrace.mesh.service_api import ServiceApi, add_url_argument, find_urls, open_api, read_token
from millrace.terminal.console import Console
from millrace.terminal.event_loop import run_async
from shared.errors import InvalidError, MillraceError
from shared.runtime.settings import environment

SIGNS = {"created": "+", "updated": "~", "unchanged": "="}


class PlannedChange(Struct, frozen=True, kw_only=True):
    """The part of a service's answer to `PUT` that is shown: the change it made or would make."""

    change: Literal["created", "updated", "unchanged"]
    fields: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace apply`."""
    parser.add_argument("file", type=Path, metavar="FILE.toml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value for ${NAME}, before the environment's"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="an operator's token [the local mesh's own]")
    add_data_argument(parser)
    add_url_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Show what the file changes, and change it."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    file = read_apply_file(args.file, variables(args.set))
    urls = find_urls(args.url, args.data)
    console = Console()
    async with open_api(urls, read_token(args.token_file, args.data)) as api:
        plan = await make_plan(api, file)
        for resource, change in plan:
            console.print_line(described(resource, change))
        changing = [resource for resource, change in plan if change.change != "unchanged"]
        rest = "What is not in the file is left alone."
        if not changing:
            console.print_line(f"Nothing to change. {rest}")
        elif args.dry_run:
            console.print_line(f"{len(changing)} of {len(plan)} would change; this was a dry run. {rest}")
        else:
            await carry_out(api, file, changing, console.print_line)
            console.print_line(f"{len(changing)} of {len(plan)} changed. {rest}")
    return 0


def variables(given: list[str]) -> Callable[[str], str | None]:
    """Values for `${NAME}`: those of `--set`, then the environment's. Raises `InvalidError`."""
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidError(f"expected NAME=VALUE, got {name!r}", field="--set")
        values[name] = value
    return lambda name: values[name] if name in values else environment((name,)).get(name)


async def make_plan(api: ServiceApi, file: ApplyFile) -> list[tuple[Resource, PlannedChange]]:
    """The change of each resource. Raises `InvalidError` naming every line that a service refuses."""
    plan: list[tuple[Resource, PlannedChange]] = []
    refusals: list[str] = []
    for resource in file.resources:
        try:
            plan.append((resource, await _put(api, resource, dry_run=True)))
        except MillraceError as error:
            if error.retryable:
                raise
            refusals.append(file.refusal(resource, error).message)
    if refusals:
        raise InvalidError("\n".join([*refusals, "nothing was changed"]))
    return plan


async def carry_out(
    api: ServiceApi, file: ApplyFile, resources: list[Resource], print_line: Callable[[str], None]
) -> None:
    """Put the resources. Raises `InvalidError` at the first that is refused after all; those before it are stored."""
    for number, resource in enumerate(resources):
        try:
            change = await _put(api, resource, dry_run=False)
        except MillraceError as error:
            raise InvalidError(f"{file.refusal(resource, error)}\n{number} of {len(resources)} were changed") from None
        print_line(f"{resource.name} {change.change}")


async def _put(api: ServiceApi, resource: Resource, *, dry_run: bool) -> PlannedChange:
    query = {"dry_run": "true"} if dry_run else None
    answer = await api.call(resource.service, "PUT", resource.path, body=resource.body, query=query)
    return msgspec.convert(answer, PlannedChange)


def described(resource: Resource, change: PlannedChange) -> str:
    """A line of the plan. Fields are named and their values are not: some are secret."""
    # What is new has every field; what the file says of it is what a reader wants to see.
    named = tuple(resource.body) if change.change == "created" else change.fields
    fields = f": {', '.join(named)}" if named else ""
    return f"{SIGNS[change.change]} {resource.name} {change.change}{fields}"
