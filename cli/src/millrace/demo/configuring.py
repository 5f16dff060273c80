"""The demo's configuration: applies demo.toml as `millrace apply` does, and makes the customer's account in AWS."""

from millrace.configuration.file import read_apply_file
from millrace.demo.demo_run import StepResult, equal
from millrace.demo.environment import APP, DemoEnvironment
from millrace.demo.exports import REPORTS
from millrace.demo.moto import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from millrace.demo.streaming import PURCHASES, SHARDS
from millrace.demo.uploads import PASSWORD
from millrace.verbs.apply import carry_out, make_plan

MEDIA = "shop-media"


async def start(environment: DemoEnvironment) -> StepResult:
    """Start moto and the mesh."""
    mesh = await environment.open()
    running = [*mesh.nats.children, *mesh.children.values()]
    return equal(
        "moto, NATS and 4 services ready",
        f"moto, NATS and {len(mesh.children)} services ready",
        ", ".join(f"{one.name} {one.pid}" for one in running),
        f"folder {environment.folder.root}",
    )


async def make_account(environment: DemoEnvironment) -> StepResult:
    """Make the bucket and the streams that a customer has at AWS beforehand."""
    await environment.account.make_bucket(MEDIA, public=True)
    await environment.account.make_bucket(REPORTS)
    for stream, shards in SHARDS.items():
        await environment.account.make_stream(stream, shards)
    return equal(
        "2 buckets, 2 streams", f"2 buckets, {len(SHARDS)} streams", f"at {environment.moto_url}, which is moto"
    )


async def apply(environment: DemoEnvironment) -> StepResult:
    """Apply the file, and check that applying it again changes nothing."""
    values = {
        "AWS_ENDPOINT_URL": environment.moto_url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "FTP_PASSWORD": PASSWORD,
    }
    file = read_apply_file(environment.inputs / "demo.toml", values.get)
    plan = await make_plan(environment.api, file)
    done: list[str] = []
    await carry_out(environment.api, file, [resource for resource, _ in plan], done.append)
    again = [change.change for _, change in await make_plan(environment.api, file)]
    return equal(
        f"{len(file.resources)} created, then {len(file.resources)} unchanged",
        f"{sum(line.endswith(' created') for line in done)} created, then {again.count('unchanged')} unchanged",
        *done,
    )


async def test_connections(environment: DemoEnvironment) -> StepResult:
    """Test the connection of each connector and each export."""
    root = f"/v1/apps/{APP}"
    tests = {
        "amazon-storage": ("storage", f"{root}/connectors/amazon-storage/test", None),
        "kinesis": ("hooks", f"{root}/connectors/kinesis/test", {"stream_name": PURCHASES}),
        "export clicks": ("exporter", f"{root}/exports/clicks/test", None),
        "export conversions": ("exporter", f"{root}/exports/conversions/test", None),
        "export events": ("exporter", f"{root}/exports/events/test", None),
    }
    reports = {
        name: await environment.api.call(service, "POST", path, body=body)
        for name, (service, path, body) in tests.items()
    }
    lines = [
        f"{name}: {report['status']} ({', '.join(step['name'] + ' ' + step['status'] for step in report['steps'])})"
        for name, report in reports.items()
    ]
    passed = sum(report["status"] == "ok" for report in reports.values())
    return equal(f"{len(tests)} of {len(tests)} ok", f"{passed} of {len(tests)} ok", *lines)
