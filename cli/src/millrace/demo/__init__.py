"""
`millrace demo`: a run through all services, step by step, on a real mesh of its own.

`steps` has the steps, `environment` the mesh that they run on. Here is the verb.
"""

import argparse
import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from millrace.demo.demo_run import DemoRun, StepError
from millrace.demo.environment import DemoEnvironment
from millrace.demo.steps import START, STEPS, run_steps
from millrace.machine.checkout import repository
from millrace.mesh.folder import MeshFolder
from millrace.terminal.console import Console, write_document
from millrace.terminal.event_loop import run_async


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace demo`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document; the rest goes to stderr")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Run the demo. Exit with 0 only when every step had the expected result."""
    root = Path(tempfile.mkdtemp(prefix="millrace-demo-"))
    console = Console(to_stderr=args.json)
    demo_run = DemoRun(console)
    try:
        code = run_async(_run(demo_run, MeshFolder(root), console, as_json=args.json, keep=args.keep))
    except BaseException:
        console.print_line(f"logs are in {root / 'logs'}")
        raise
    if demo_run.ok:
        shutil.rmtree(root, ignore_errors=True)
    else:
        console.print_line(f"logs are in {root / 'logs'}")
    return code


async def _run(demo_run: DemoRun, folder: MeshFolder, console: Console, *, as_json: bool, keep: bool) -> int:
    async with DemoEnvironment(folder, repository() / "demo") as environment:
        with contextlib.suppress(StepError):
            await run_steps(demo_run, environment, (START,))
            async with asyncio.TaskGroup() as tasks:
                engine = tasks.create_task(environment.engine.run())
                with contextlib.suppress(StepError):
                    await run_steps(demo_run, environment, STEPS)
                engine.cancel()
        if as_json:
            write_document(msgspec.json.encode({"ok": demo_run.ok, "steps": demo_run.steps}))
        else:
            demo_run.show_table()
        if keep:
            await _keep(environment, console)
    return 0 if demo_run.ok else 1


async def _keep(environment: DemoEnvironment, console: Console) -> None:
    addresses = environment.folder.addresses()
    rows = [*addresses.services.items(), ("sftp", f"sftp://{addresses.sftp}"), ("nats", addresses.nats)]
    console.table(("service", "address"), [*rows, ("moto", environment.moto_url)])
    console.print_line(f"admin token   {environment.folder.admin_token_file}")
    console.print_line(f"data and logs {environment.folder.root}")
    console.print_line("Ctrl-C ends it")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
