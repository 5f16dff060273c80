"""
`millrace up`: the mesh on this machine, until Ctrl-C. `millrace.mesh.local_mesh` starts and supervises it.
"""

import argparse
import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from millrace.machine.ports import check_free, check_port, is_free
from millrace.mesh.access import add_data_argument
from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from millrace.terminal.console import Console
from millrace.terminal.event_loop import run_async
from shared.contracts.services import SERVICE_NAMES, SERVICES
from shared.errors import InvalidError
from shared.runtime.settings import PREFIX, Settings, environment, read_settings, service_variables

USUAL_PORTS = {
    **{service.name: service.http_port for service in SERVICES},
    **{listener: port for service in SERVICES for listener, port in service.ports.items()},
    "nats": 4222,
}
"""Those of compose.yaml; taken where nothing else has them, because a newcomer can guess them."""

DECIDED = {
    **{f"{listener}_port": f"use --{listener}-port" for service in SERVICES for listener in service.ports},
    "http_port": "use --http-port-base",
    "nats_replicas": "use --nats-nodes",
    "log_level": "use --log-level",
    **dict.fromkeys(("nats_url", "nats_seed"), "it starts a NATS of its own"),
    "secret_keys": "they are in the folder of --data",
    "data_dir": "use --data",
    **dict.fromkeys(
        ("http_host", "public_url", "announce_file", "stop_deadline_s", "log_format"), "it sets this itself"
    ),
}
"""Settings of services that are not taken from the environment of `up`, and why. All others are passed on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace up`."""
    add_data_argument(parser)
    parser.add_argument(
        "--nats-nodes",
        type=int,
        choices=(1, 3),
        default=1,
        help="3 runs a real cluster, with three copies of each stream",
    )
    names = f"{', '.join(SERVICE_NAMES[:-1])} and {SERVICE_NAMES[-1]}"
    parser.add_argument("--http-port-base", type=int, metavar="N", help=f"take N to N+{len(SERVICES) - 1} for {names}")
    parser.add_argument("--sftp-port", type=int, metavar="N", help="the port for SFTP")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="[%(default)s]"
    )


def run(args: argparse.Namespace) -> int:
    """Run the mesh. Ctrl-C is the usual end, so it is a success."""
    read_settings(Settings)
    settings: dict[str, object] = {"log_level": args.log_level} | passed_on()
    wanted: dict[str, int] = {}
    if args.http_port_base is not None:
        first = check_port(args.http_port_base, "--http-port-base", count=len(SERVICES))
        wanted = {name: first + number for number, name in enumerate(SERVICE_NAMES)}
    if args.sftp_port is not None:
        wanted["sftp"] = check_port(args.sftp_port, "--sftp-port")
    return run_async(_up(MeshFolder(args.data), args.nats_nodes, wanted, settings, Console()))


def passed_on() -> dict[str, str]:
    """
    Settings of the operator for the services. A service checks its own, and does not start where one is wrong.

    Raises:
        InvalidError: One is set that `up` does not take from the environment; says what to do instead.
    """
    common = {f"{name}{end}" for name in Settings.__struct_fields__ for end in ("", "_file")}
    variables = {f"{PREFIX}{name.upper()}": name for name in common}
    found = {variables[variable]: value for variable, value in environment(tuple(variables)).items()}
    found |= service_variables()
    for name in found:
        if reason := DECIDED.get(name.removesuffix("_file")):
            raise InvalidError(f"`millrace up` does not take this setting: {reason}", field=f"{PREFIX}{name.upper()}")
    return found


async def _up(
    folder: MeshFolder, nats_nodes: int, wanted: dict[str, int], settings: dict[str, object], console: Console
) -> int:
    async with AsyncExitStack() as stack:
        stack.enter_context(folder.lock())
        ports = choose_ports(folder, wanted, console.print_line)
        with console.spinner("starting NATS and the services"):
            mesh = LocalMesh(folder, nats_nodes=nats_nodes, ports=ports, settings=settings)
            await stack.enter_async_context(mesh)
        _show(mesh, console)
        try:
            await mesh.supervise(console.print_line)
        except asyncio.CancelledError:
            console.print_line("stopping: work in flight is finished first")
    for line in mesh.unclean_exits():
        console.print_line(line)
    return 1 if mesh.unclean_exits() else 0


def choose_ports(folder: MeshFolder, wanted: dict[str, int], print_line: Callable[[str], None]) -> dict[str, int]:
    """
    The ports to ask for: what the operator wants, else those of the last run, else the usual ones, where they are free.

    Raises:
        ConflictError: One that the operator wants is taken.
    """
    chosen = {name: check_free(port, name) for name, port in wanted.items()}
    for name, port in (USUAL_PORTS | folder.ports()).items():
        if name in chosen or port in chosen.values():
            continue
        if is_free(port):
            chosen[name] = port
        else:
            print_line(f"port {port} for {name} is taken by another process; taking a free one")
    return chosen


def _show(mesh: LocalMesh, console: Console) -> None:
    for one in mesh.provisioned:
        if not one.made:
            console.print_line(str(one))
    addresses = mesh.folder.addresses()
    rows = [*addresses.services.items(), ("sftp", f"sftp://{addresses.sftp}"), ("nats", addresses.nats)]
    console.table(("service", "address"), rows)
    console.print_line(f"admin token   {mesh.folder.admin_token_file}")
    console.print_line(f"data and logs {mesh.folder.root}")
    console.print_line("ready; Ctrl-C stops the mesh")
