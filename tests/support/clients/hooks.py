"""A client of the hooks service. No test lives here."""

import io
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from shared.contracts import subjects
from shared.messaging.bus import Bus
from support.servers.kinesis import FaultyKinesis, Stored
from support.waiting import until

SECRET = "not-a-real-secret-key-0123456789"


class HooksClient:
    """One tenant at one running service."""

    def __init__(self, http: aiohttp.ClientSession, url: str, app_key: str) -> None:
        self._http = http
        self._base = f"{url}/v1/apps/{app_key}"

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """The status and the JSON of any route under the app; `body` goes as JSON, `raw` as it is."""
        sent = json.dumps(body).encode() if body is not None else raw
        # As a file, because aiohttp warns of large bodies in one piece.
        data = io.BytesIO(sent) if sent is not None else None
        headers = headers or ({"Content-Type": "application/json"} if body is not None else {})
        async with self._http.request(method, f"{self._base}{path}", data=data, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def connect(self, kinesis: FaultyKinesis, **changes: Any) -> None:
        """Save the connector."""
        status, told = await self.ask("PUT", "/connectors/kinesis", connector(kinesis, **changes))
        assert status == 200, told

    async def hook(self, hook_id: str, **changes: Any) -> None:
        """Save a hook: every event goes to `orders`, unless `changes` say otherwise."""
        hook = {"name": hook_id, "stream_name": "orders", "trigger_type": "EVENT", "event_code": "*"} | changes
        status, told = await self.ask("PUT", f"/hooks/{hook_id}", hook)
        assert status == 200, told

    async def post(self, events: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Post events; all of them have to be good."""
        status, told = await self.ask("POST", "/events", list(events))
        assert (202, 0) == (status, told.get("rejected")), told
        reply: dict[str, Any] = told
        return reply

    async def status(self, hook_id: str) -> dict[str, Any]:
        """The numbers of a hook."""
        status, told = await self.ask("GET", f"/hooks/{hook_id}/status")
        assert status == 200, told
        numbers: dict[str, Any] = told
        return numbers


def connector(kinesis: FaultyKinesis, **changes: Any) -> dict[str, Any]:
    """The form of a connector."""
    form = {"region": "eu-west-1", "api_key": "AKIAIOSFODNN7EXAMPLE", "secret_key": SECRET, "endpoint_url": kinesis.url}
    return form | changes


@asynccontextmanager
async def open_client(url: str, headers: dict[str, str], app_key: str = "shop") -> AsyncIterator[HooksClient]:
    """A client that is signed in."""
    async with aiohttp.ClientSession(headers=headers) as http:
        yield HooksClient(http, url, app_key)


def events(number: int, users: int, **common: Any) -> list[dict[str, Any]]:
    """Events with ids `e000000`, `e000001`, …, the users taking turns."""
    return [
        {"id": f"e{place:06}", "code": "purchase", "user_id": f"user-{place % users}", "occurred_at": place} | common
        for place in range(number)
    ]


def first_successes(records: Iterable[Stored]) -> dict[str, list[str]]:
    """Each user's event ids in the order of the stream, repetitions left out."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        found.setdefault(record.value["user"]["userId"], {}).setdefault(record.value["id"])
    return {user: list(ids) for user, ids in found.items()}


def by_user(posted: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Each user's event ids in the order in which they were posted."""
    found: dict[str, list[str]] = {}
    for event in posted:
        found.setdefault(event["user_id"], []).append(event["id"])
    return found


def holds(number: int) -> Callable[[list[Stored]], bool]:
    """Return a test for so many different events in the stream."""
    return lambda records: len(records) >= number and len({record.value["id"] for record in records}) >= number


async def pending(bus: Bus) -> int:
    """Count the messages that are delivered and not acknowledged, and those not delivered yet."""
    infos = [
        await bus.js.consumer_info("EVENTS", subjects.hooks_consumer(number)) for number in range(subjects.PARTITIONS)
    ]
    return sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos)


async def wait_acknowledged(bus: Bus) -> None:
    """Wait until no message of `EVENTS` waits for hooks."""

    async def nothing_waits() -> bool:
        return await pending(bus) == 0

    await until(nothing_waits)
