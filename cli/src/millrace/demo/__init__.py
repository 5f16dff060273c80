"""
`millrace demo`: one story, told step by step, on a real mesh of its own.

What is played is in `steps`; what it is played on in `stage`; here is the verb: how it begins, and how it ends.
"""

import argparse
import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from millrace.demo.stage import Stage
from millrace.demo.steps import START, STEPS, tell
from millrace.demo.story import Story, StoryError
from millrace.machine.checkout import repository
from millrace.mesh.folder import MeshFolder
from millrace.terminal.console import Teller, write_document
from millrace.terminal.event_loop import run_async


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON document; the rest goes to stderr")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Tell the story. Exit with 0 only when every step brought what it had to."""
    root = Path(tempfile.mkdtemp(prefix="millrace-demo-"))
    teller = Teller(to_stderr=args.json)
    story = Story(teller)
    try:
        code = run_async(_run(story, MeshFolder(root), teller, as_json=args.json, keep=args.keep))
    except BaseException:
        teller.say(f"logs are in {root / 'logs'}")
        raise
    if story.ok:
        shutil.rmtree(root, ignore_errors=True)
    else:
        teller.say(f"logs are in {root / 'logs'}")
    return code


async def _run(story: Story, folder: MeshFolder, teller: Teller, *, as_json: bool, keep: bool) -> int:
    async with Stage(folder, repository() / "demo") as stage:
        with contextlib.suppress(StoryError):
            await tell(story, stage, (START,))
            async with asyncio.TaskGroup() as tasks:
                engine = tasks.create_task(stage.engine.run())
                with contextlib.suppress(StoryError):
                    await tell(story, stage, STEPS)
                engine.cancel()
        if as_json:
            write_document(msgspec.json.encode({"ok": story.ok, "steps": story.steps}))
        else:
            story.show_table()
        if keep:
            await _keep(stage, teller)
    return 0 if story.ok else 1


async def _keep(stage: Stage, teller: Teller) -> None:
    addresses = stage.folder.addresses()
    rows = [*addresses.services.items(), ("sftp", f"sftp://{addresses.sftp}"), ("nats", addresses.nats)]
    teller.table(("service", "address"), [*rows, ("moto", stage.moto_url)])
    teller.say(f"admin token   {stage.folder.admin_token_file}")
    teller.say(f"data and logs {stage.folder.root}")
    teller.say("Ctrl-C ends it")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
