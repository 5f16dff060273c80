"""The demo's exports: flushed now rather than on the quarter hour, and read from the bucket as the customer would."""

import csv
import gzip
import io

from millrace.demo.demo_run import StepResult
from millrace.demo.environment import APP, DemoEnvironment

REPORTS = "shop-reports"
SHOWN = 110
AVRO_MAGIC = b"Obj\x01"


async def export_clicks(environment: DemoEnvironment) -> StepResult:
    """Flush the export of clicks and check its rows."""
    return await _export(environment, "clicks", "click")


async def export_conversions(environment: DemoEnvironment) -> StepResult:
    """Flush the export of conversions and check its rows."""
    return await _export(environment, "conversions", "conversion")


async def export_events(environment: DemoEnvironment) -> StepResult:
    """Flush the export of all events, and look at its Avro files."""
    published = len(environment.events) + len(environment.engine.sent)
    run = await environment.api.call("exporter", "POST", f"/v1/apps/{APP}/exports/events/flush")
    files = await environment.account.files(REPORTS, "currents/")
    rows = {file["key"]: file["rows"] for file in run["files"]}
    is_avro = all(file.body.startswith(AVRO_MAGIC) for file in files)
    stored = {file.key for file in files}
    return StepResult(
        expected=f"{published} events in Avro files, one for each type and hour",
        got=f"{sum(rows.values())} events in {len(files)} {'Avro ' if is_avro else ''}files",
        ok=run["state"] == "completed" and is_avro and stored == set(rows) and sum(rows.values()) == published,
        details=tuple(
            f"s3://{REPORTS}/{file.key}  {len(file.body)} bytes, {rows.get(file.key)} events" for file in files
        ),
    )


async def write_lake(environment: DemoEnvironment) -> StepResult:
    """Write all events into the lake, and list its files."""
    published = len(environment.events) + len(environment.engine.sent)
    run = await environment.api.call("exporter", "POST", f"/v1/apps/{APP}/lake/flush")
    days = (await environment.api.call("exporter", "GET", f"/v1/apps/{APP}/lake"))["days"]
    files = [file for day in days for file in day["files"]]
    rows = sum(file["rows"] for file in files)
    return StepResult(
        expected=f"{published} events in Parquet files, one for each type",
        got=f"{rows} events in {len(files)} files",
        ok=run["state"] == "completed" and rows == published and len(files) == len(days),
        details=tuple(f"{file['key']}  {file['size_bytes']} bytes, {file['rows']} events" for file in files),
    )


async def _export(environment: DemoEnvironment, export: str, event_type: str) -> StepResult:
    wanted = {event.id for event in environment.events if event.type == event_type}
    run = await environment.api.call("exporter", "POST", f"/v1/apps/{APP}/exports/{export}/flush")
    files = await environment.account.files(REPORTS, f"{export}/")
    found: list[str] = []
    details: list[str] = []
    for file in files:
        text = gzip.decompress(file.body).decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        found += [row["id"] for row in rows]
        details.append(f"s3://{REPORTS}/{file.key}  {len(file.body)} bytes, {len(rows)} rows")
        details += [line[:SHOWN] for line in text.splitlines()[:2]]
    state = run["state"]
    return StepResult(
        expected=f"{len(wanted)} rows, each once",
        got=f"{len(found)} rows, {'each once' if len(found) == len(set(found)) else 'some twice'}"
        + ("" if state == "completed" else f", the run {state}"),
        ok=state == "completed" and len(found) == len(wanted) and set(found) == wanted,
        details=tuple(details),
    )
