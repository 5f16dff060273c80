"""
Files hold what was published: each layout in each format, by the whole service, read by other programs' readers.

Expected cells are written here by hand, from the JSON that was published and the rules in the service's README.
"""

import csv
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Final

import duckdb
import fastavro
import pytest
from aiohttp import ClientSession
from msgspec import Raw

from exporter.app import SERVICE
from shared.contracts import subjects
from shared.contracts.messages import Event, EventType, Identities, User, encode
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from support.run_service import running
from support.servers.moto import MotoServer

BUCKET: Final = "golden"
AT_MS: Final = 1_795_314_667_123
AT: Final = "2026-11-22 02:31:07"
LONG: Final = "7" * 18
LONGER: Final = "123456789012345678901234567890"

ODD: Final = {
    # attribute: JSON as it was published, and the cell of a column of text.
    "sub1": (LONG, LONG),
    "sub2": (LONGER, LONGER),
    "sub3": ("1.10", "1.10"),
    "sub4": ("1e-7", "0.0000001"),
    "sub5": ("-0.0", "-0.0"),
    "sub6": ("null", ""),
    "sub7": ('""', ""),
    "sub8": ('"a\\r\\nb\\r"', "a\r\nb\r"),
    "ext1": ('"\\u0000"', "\0"),
    "ext2": ('[1, "1", null, 1.0]', '[1,"1",null,1.0]'),
    "ext3": ('{"a": {"b": [1.10, 1e400]}}', '{"a":{"b":[1.10,1e400]}}'),
    "ua": ('"x, \\"y\\" \\u00e9\\ud83d\\ude00"', 'x, "y" é😀'),
    "uniq": ("true", "true"),
    "isp": ('"=1+1"', "=1+1"),
    "ip": ("1e400", "1" + "0" * 400),
}
ATTRIBUTES: Final = "{" + ",".join(f'"{name}":{text}' for name, (text, _) in ODD.items()) + "}"
FORMATS: Final = ("csv.gz", "ndjson.gz", "avro", "parquet")


def event(id: str, kind: EventType, attributes: str = "{}") -> Event:
    return Event(
        id=id,
        app_key="shop",
        type=kind,
        code=kind.upper(),
        user_id="u,1",
        ext_id="e",
        occurred_at=AT_MS,
        attributes=Raw(attributes.encode()),
        user=User(attributes=Raw(b'{"tier":1.10}')),
        identities=Identities(msisdn="+90"),
    )


PUBLISHED: Final = [
    event("odd", "click", ATTRIBUTES),
    # Another type in the same columns.
    event("other", "click", '{"sub1":"text","sub2":false,"sub3":{},"sub4":[],"sub5":7,"uniq":"no"}'),
    event("bare", "click"),
]


class Exporter:
    """The service, as the tenant `shop` uses it."""

    def __init__(self, url: str, http: ClientSession, moto: MotoServer, folder: Path) -> None:
        self._url = url
        self._http = http
        self._moto = moto
        self._folder = folder

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, f"{self._url}/v1/apps/shop{path}", json=body) as answer:
            text = await answer.text()
            assert 200 <= answer.status < 300, text
            return json.loads(text) if text else None

    async def export(self, data: str, form: str) -> None:
        destination = {
            "type": "s3",
            "bucket": BUCKET,
            "region": self._moto.region,
            "access_key": "testing",
            "secret_key": "testing-secret",
            "directory": f"{data}-{form}",
            "endpoint_url": self._moto.url,
        }
        body = {"data": data, "format": form, "destination": destination}
        await self.ask("PUT", f"/exports/{data}-{form.replace('.', '-')}", body)

    async def rows(self, data: str, form: str) -> list[dict[str, Any]]:
        """Flush an export, and read its only file with a reader that is not ours."""
        run = await self.ask("POST", f"/exports/{data}-{form.replace('.', '-')}/flush")
        assert ("completed", 3, 3) == (run["state"], run["rows_in"], run["rows_out"])
        [file] = run["files"]
        async with self._moto.client("s3") as s3:
            stored = await (await s3.get_object(Bucket=BUCKET, Key=file["key"]))["Body"].read()
        return self._read(form, stored)

    def _read(self, form: str, stored: bytes) -> list[dict[str, Any]]:
        if form == "csv.gz":
            return [*csv.DictReader(StringIO(gzip.decompress(stored).decode(), newline=""))]
        if form == "avro":
            return [record for record in fastavro.reader(BytesIO(stored)) if isinstance(record, dict)]
        path = self._folder / f"file.{form.removesuffix('.gz')}"
        path.write_bytes(gzip.decompress(stored) if form == "ndjson.gz" else stored)
        if form == "ndjson.gz":
            return [json.loads(line, parse_float=str) for line in path.read_text().splitlines()]
        with duckdb.connect() as connection:
            found = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture
async def exporter(
    settings: Settings, shop: dict[str, str], moto: MotoServer, tmp_path: Path
) -> AsyncIterator[Exporter]:
    await moto.create_bucket(BUCKET)
    async with running(SERVICE, settings) as service, ClientSession(headers=shop) as http:
        yield Exporter(service.url, http, moto, tmp_path)


def expected_clicks() -> list[dict[str, str]]:
    common = {"created_at": AT, "user_id": "u,1"}
    other = {"sub1": "text", "sub2": "false", "sub3": "{}", "sub4": "[]", "sub5": "7", "uniq": "no"}
    return [
        {"id": "odd", "click_id": "odd"} | common | {name: cell for name, (_, cell) in ODD.items()},
        {"id": "other", "click_id": "other"} | common | other,
        {"id": "bare", "click_id": "bare"} | common,
    ]


async def test_clicks_are_the_same_cells_in_every_format(exporter: Exporter, bus: Bus) -> None:
    for form in FORMATS:
        await exporter.export("clicks", form)
    await bus.publish(subjects.events("shop", 0), encode(PUBLISHED))
    expected = [{name: cell for name, cell in row.items() if cell} for row in expected_clicks()]

    for form in FORMATS:
        found = await exporter.rows("clicks", form)

        cells = [{name: cell for name, cell in row.items() if cell not in ("", None)} for row in found]
        assert expected == cells, form


async def test_events_are_the_same_in_every_format_with_attributes_as_they_were_published(
    exporter: Exporter, bus: Bus
) -> None:
    for form in FORMATS:
        await exporter.export("events", form)
    await bus.publish(subjects.events("shop", 0), encode(PUBLISHED))
    common = {
        "user_id": "u,1",
        "app_id": "shop",
        "name": "CLICK",
        "time": AT_MS // 1000,
        "external_user_id": "e",
        "occurred_at": AT_MS,
        "user_properties": '{"tier":1.10}',
    }
    texts = [bytes(event.attributes).decode() for event in PUBLISHED]
    expected: list[dict[str, Any]] = [
        {"id": event.id, "properties": text if text != "{}" else None} | common
        for event, text in zip(PUBLISHED, texts, strict=True)
    ]
    assert ATTRIBUTES in texts

    for form in FORMATS:
        found = await exporter.rows("events", form)

        wanted = expected
        if form == "csv.gz":
            wanted = [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in expected]
        if form == "ndjson.gz":
            wanted = [
                {
                    name: json.loads(cell, parse_float=str) if "properties" in name else cell
                    for name, cell in row.items()
                    if cell is not None
                }
                for row in expected
            ]
        assert wanted == found, form


async def test_the_lake_has_every_event_with_the_json_that_was_published(
    exporter: Exporter, bus: Bus, settings: Settings
) -> None:
    await bus.publish(subjects.events("shop", 0), encode(PUBLISHED))
    await exporter.ask("POST", "/lake/flush")

    listed = await exporter.ask("GET", "/lake")
    files = [str(Path(settings.data_dir) / "lake" / file["key"]) for day in listed["days"] for file in day["files"]]
    with duckdb.connect() as connection:
        rows = connection.execute(
            'SELECT id, code, occurred_at, attributes, "user", identities FROM read_parquet(?) ORDER BY sequence',
            [files],
        ).fetchall()

    assert datetime.fromtimestamp(AT_MS // 1000, UTC).isoformat(" ").startswith(AT)
    assert [event.id for event in PUBLISHED] == [row[0] for row in rows]
    for event, (_, code, at, attributes, user, identities) in zip(PUBLISHED, rows, strict=True):
        published = bytes(event.attributes).decode()
        assert (event.code, AT_MS) == (code, at)
        assert (published if published != "{}" else None) == attributes
        assert ('{"tier":1.10}', {"msisdn": "+90"}) == (user, json.loads(identities))
