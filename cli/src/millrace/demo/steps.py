"""The demo's steps, in their order. The work of each is in the module of its part."""

from collections.abc import Awaitable, Callable
from functools import partial

from millrace.demo import configuring, exports, media, streaming, uploads
from millrace.demo.demo_run import DemoRun, StepResult
from millrace.demo.environment import DemoEnvironment
from millrace.demo.push_engine import NAME

Work = Callable[[DemoEnvironment], Awaitable[StepResult]]

START: tuple[str, Work] = ("start the mesh", configuring.start)

STEPS: tuple[tuple[str, Work], ...] = (
    ("make the customer's AWS account", configuring.make_account),
    ("apply demo/demo.toml", configuring.apply),
    ("test the connections", configuring.test_connections),
    ("upload a photograph", media.upload_photo),
    ("upload a widget", media.upload_widget),
    ("put profile.txt by SFTP", uploads.put_profile_file),
    ("put push.csv by SFTP", uploads.put_push_file),
    (f"{NAME} takes the commands", uploads.run_push_engine),
    ("publish 10,000 events", streaming.publish_events),
    ("read the purchases from Kinesis", streaming.read_purchases),
    ("read the message logs from Kinesis", streaming.read_message_logs),
    ("flush the export of clicks", exports.export_clicks),
    ("flush the export of conversions", exports.export_conversions),
    ("flush the export of all events", exports.export_events),
    ("write all events into the lake", exports.write_lake),
)


async def run_steps(demo_run: DemoRun, environment: DemoEnvironment, steps: tuple[tuple[str, Work], ...]) -> None:
    """Run the steps one after the other. Raises `StepError` at the first that cannot be carried out."""
    for name, work in steps:
        await demo_run.step(name, partial(work, environment))
