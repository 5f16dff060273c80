"""The life of a service: start, ready, stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO

import aiohttp
import msgspec
import pytest
from msgspec import Struct
from structlog.testing import capture_logs

from millrace.nats_servers.config import make_seed
from millrace.nats_servers.server import NatsServer
from shared.config.registry import Kind, Registry
from shared.config.tokens import TOKENS, Token
from shared.contracts.messages import Alert, decode
from shared.contracts.streams import ALERTS, CONFIG
from shared.errors import BusyError, ConflictError, NotFoundError, UnavailableError
from shared.http.routes import Route
from shared.http.server import Call
from shared.lifecycle import serve
from shared.messaging import bus as messaging_bus
from shared.messaging import connection
from shared.messaging.bus import Bus
from shared.messaging.provisioning.looking import wait_provisioned
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings
from shared.service import Mesh, RunningService, Service
from support.run_service import provision_for, running
from support.stored_messages import messages
from support.waiting import until


class Thing(Struct, kw_only=True, forbid_unknown_fields=True):
    size: int


class Toy:
    """State of the toy service; records the events of its life in order."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.working = asyncio.Event()
        self.may_finish = asyncio.Event()

    def close(self) -> None:
        self.happened.append("intake closed")

    async def join(self) -> None:
        await self.may_finish.wait()
        self.happened.append("work finished")

    @asynccontextmanager
    async def part(self, name: str) -> AsyncIterator[None]:
        self.happened.append(f"{name} opened")
        yield
        self.happened.append(f"{name} closed")


async def echo(call: Call[Toy]) -> Thing:
    return Thing(size=call.body.size)


async def wait(call: Call[Toy]) -> Thing:
    call.state.working.set()
    await call.state.may_finish.wait()
    return Thing(size=0)


async def missing(call: Call[Toy]) -> None:
    raise NotFoundError("no such thing", field="id")


async def busy(call: Call[Toy]) -> None:
    raise BusyError("later", retry_after_s=3)


async def bug(call: Call[Toy]) -> None:
    raise RuntimeError("the secret is hunter2")


ROUTES = (
    Route("POST", "/v1/apps/{app_key}/echo", echo, "Echo", body=Thing, reply=Thing, status=201),
    Route("GET", "/v1/wait", wait, "Wait", scope="open", reply=Thing),
    Route("GET", "/v1/apps/{app_key}/missing", missing, "Missing"),
    Route("GET", "/v1/busy", busy, "Busy", scope="open"),
    Route("GET", "/v1/bug", bug, "Bug", scope="open"),
    Route("GET", "/v1/tokens", missing, "Operators only", scope="admin"),
)


def service(toy: Toy) -> Service:
    async def build(mesh: Mesh) -> Toy:
        await mesh.enter(toy.part("first"))
        await mesh.enter(toy.part("second"))
        mesh.intake("toy", toy)
        return toy

    return Service(name="toy", build=build, routes=ROUTES, buckets=(CONFIG,))


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
async def served(toy: Toy, settings: Settings) -> AsyncIterator[RunningService]:
    async with running(service(toy), settings) as served:
        yield served
        toy.may_finish.set()


@pytest.fixture
async def http(served: RunningService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(served.url) as session:
        yield session


async def test_a_running_service_is_alive_ready_and_counted(http: aiohttp.ClientSession) -> None:
    async with http.get("/livez") as alive, http.get("/readyz") as ready, http.get("/metrics") as metrics:
        assert (alive.status, ready.status, metrics.status) == (200, 200, 200)
        assert await ready.json() == {"ready": True, "ok": ["nats"], "failing": {}}
        counted = await metrics.text()
        assert "millrace_http_requests_total" in counted
        assert "millrace_ready 1.0" in counted


async def test_metrics_name_tenants_to_a_token_of_their_scope_alone(
    served: RunningService,
    http: aiohttp.ClientSession,
    admin: dict[str, str],
    shop: dict[str, str],
    metrics_token: dict[str, str],
) -> None:
    served.mesh.metrics.read(lambda: [("millrace_hook_sent_total", ("shop", "campaign"), 3)])

    async def scrape(headers: dict[str, str]) -> tuple[int, str]:
        async with http.get("/metrics", headers=headers) as response:
            return response.status, await response.text()

    for headers in (admin, metrics_token):
        status, text = await scrape(headers)
        assert 200 == status
        assert 'millrace_hook_sent_total{app_key="shop",hook_id="campaign"} 3.0' in text
    status, text = await scrape({})
    assert 200 == status
    assert "millrace_hook_sent_total 3.0" in text
    assert "campaign" not in text
    for headers, refused in ((shop, 403), ({"Authorization": "Bearer mr_" + "x" * 43}, 401)):
        status, text = await scrape(headers)
        assert refused == status
        assert "millrace_hook" not in text


async def test_token_for_metrics_opens_nothing_else(http: aiohttp.ClientSession, metrics_token: dict[str, str]) -> None:
    for path in ("/v1/apps/shop/missing", "/v1/apps/metrics/missing", "/v1/tokens"):
        async with http.get(path, headers=metrics_token) as response:
            assert 403 == response.status


async def test_metrics_show_how_full_its_buckets_are(http: aiohttp.ClientSession) -> None:
    async def shown() -> bool:
        async with http.get("/metrics") as metrics:
            return 'millrace_stream_limit_bytes{stream="KV_CONFIG"} 1.34217728e+08' in await metrics.text()

    await until(shown)


async def test_a_typed_route_decodes_and_answers(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    async with http.post("/v1/apps/shop/echo", data=b'{"size": 3}', headers=shop) as response:
        assert (response.status, await response.json()) == (201, {"size": 3})


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        (b'{"size": "big"}', "size", "Expected `int`, got `str`"),
        (b'{"size": 1, "colour": 2}', "colour", "unknown field"),
        (b"{}", "size", "missing required field"),
        (b"{", None, "expected JSON"),
    ],
)
async def test_a_bad_body_says_which_field_and_what_was_expected(
    http: aiohttp.ClientSession, shop: dict[str, str], body: bytes, field: str | None, told: str
) -> None:
    async with http.post("/v1/apps/shop/echo", data=body, headers=shop) as response:
        error = (await response.json())["error"]

    assert (response.status, error["code"], error.get("field")) == (400, "invalid", field)
    assert told in error["message"]


async def test_a_body_over_the_limit_is_too_large(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    async with http.post("/v1/apps/shop/echo", data=BytesIO(bytes((1 << 20) + 1)), headers=shop) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer mr_" + "x" * 43}, {"Authorization": "Basic abc"}])
async def test_no_token_or_a_wrong_one_is_401(http: aiohttp.ClientSession, header: dict[str, str]) -> None:
    async with http.get("/v1/apps/shop/missing", headers=header) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_another_tenants_token_is_403_and_an_operators_is_accepted(
    http: aiohttp.ClientSession, shop: dict[str, str], rival: dict[str, str], admin: dict[str, str]
) -> None:
    async def status(path: str, headers: dict[str, str]) -> int:
        async with http.get(path, headers=headers) as response:
            return response.status

    assert await status("/v1/apps/shop/missing", shop) == 404
    assert await status("/v1/apps/shop/missing", rival) == 403
    assert await status("/v1/apps/shop/missing", admin) == 404
    assert await status("/v1/tokens", shop) == 403
    assert await status("/v1/tokens", admin) == 404


async def test_a_revoked_token_is_refused(
    served: RunningService, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    registry = served.mesh.registry
    for entry in await registry.list(TOKENS):
        assert isinstance(entry.value, Token)
        await registry.delete(TOKENS, entry.app_key)
    view = registry.view(TOKENS)
    async with asyncio.timeout(10):
        while view.all():
            await asyncio.sleep(0.005)

    async with http.get("/v1/apps/shop/missing", headers=shop) as response:
        assert response.status == 401


async def test_errors_have_the_time_of_a_retry(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/busy") as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")


async def test_a_bug_reveals_nothing_to_the_caller_and_is_counted(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/bug") as response:
        assert (response.status, await response.json()) == (
            500,
            {"error": {"code": "internal", "message": "internal error"}},
        )
    async with http.get("/metrics") as metrics:
        assert 'millrace_bugs_total{where="http"} 1.0' in await metrics.text()


async def test_unknown_paths_and_methods_have_the_same_error_body(http: aiohttp.ClientSession) -> None:
    async with http.get("/nowhere") as nowhere, http.put("/v1/busy") as wrong:
        assert (nowhere.status, (await nowhere.json())["error"]["code"]) == (404, "not_found")
        assert (wrong.status, (await wrong.json())["error"]["code"]) == (405, "invalid")


async def test_the_openapi_document_names_every_route_and_schema(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as response:
        document = await response.json()

    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == {
        (route.path, route.method.lower()) for route in ROUTES
    }
    assert document["components"]["schemas"]["Thing"]["required"] == ["size"]


async def test_stopping_finishes_the_work_in_flight_and_closes_in_reverse(toy: Toy, settings: Settings) -> None:
    stop = asyncio.Event()
    ready: asyncio.Future[RunningService] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
        await provision_for(service(toy), settings)
        serving = tasks.create_task(serve(service(toy), settings, stop, ready))
        url = (await ready).url
        asking = tasks.create_task(_status(session, f"{url}/v1/wait"))
        await toy.working.wait()
        stop.set()
        async with asyncio.timeout(10):
            while "intake closed" not in toy.happened:
                await asyncio.sleep(0.005)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{url}/livez")
        toy.may_finish.set()
        code = await serving

    assert code == 0
    assert asking.result() == 200
    assert toy.happened == [
        "first opened",
        "second opened",
        "intake closed",
        "work finished",
        "second closed",
        "first closed",
    ]


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return response.status


async def test_work_that_does_not_finish_is_cut_off_at_the_deadline(toy: Toy, settings: Settings) -> None:
    hasty = msgspec.convert(msgspec.to_builtins(settings) | {"stop_deadline_s": 0.2}, Settings)
    stop = asyncio.Event()
    stop.set()
    ready: asyncio.Future[RunningService] = asyncio.get_running_loop().create_future()
    stop.clear()
    async with asyncio.TaskGroup() as tasks:
        await provision_for(service(toy), settings)
        serving = tasks.create_task(serve(service(toy), hasty, stop, ready))
        await ready
        stop.set()

    assert serving.result() == 1
    assert toy.happened[-2:] == ["second closed", "first closed"]


async def test_a_signal_during_the_start_ends_it(toy: Toy, settings: Settings) -> None:
    nowhere = msgspec.convert(msgspec.to_builtins(settings) | {"nats_url": "nats://127.0.0.1:9"}, Settings)
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(service(toy), nowhere, stop))
        await asyncio.sleep(0)
        stop.set()

    assert serving.result() == 0
    assert toy.happened == []


async def test_a_signal_ends_a_start_that_waits_for_a_part(settings: Settings) -> None:
    stop = asyncio.Event()

    async def build(_: Mesh) -> None:
        stop.set()
        await asyncio.Event().wait()

    waiting = Service(name="toy", build=build, buckets=(CONFIG,))
    await provision_for(waiting, settings)
    async with asyncio.timeout(20):
        assert 0 == await serve(waiting, settings, stop)


async def test_a_service_without_its_streams_names_them_and_alerts(
    toy: Toy, settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.lifecycle.wait_provisioned", partial(wait_provisioned, wait_s=0))
    await ensure(bus, ALERTS, settings)

    with pytest.raises(ExceptionGroup) as failure:
        await serve(service(toy), settings, asyncio.Event())

    named = "NATS is not provisioned for this release: bucket CONFIG is missing; run `millrace provision`"
    assert failure.group_contains(UnavailableError, match=named)
    [alert] = [decode(message.data, Alert) for message in await messages(bus, ALERTS, "alerts.toy.*.*")]
    assert ("not-provisioned", named) == (alert.kind, alert.message)
    assert [] == toy.happened


async def test_a_spawned_task_that_fails_stops_the_service(settings: Settings) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    async def build(mesh: Mesh) -> None:
        mesh.spawn("failing", fail())

    failing = Service(name="toy", build=build, buckets=(CONFIG,))
    await provision_for(failing, settings)
    with pytest.raises(ExceptionGroup) as failure:
        await serve(failing, settings, asyncio.Event())

    assert failure.group_contains(RuntimeError, match="a bug")


async def test_a_service_without_a_part_of_its_configuration_does_not_start(
    registry: Registry, settings: Settings
) -> None:
    await ensure(registry.bus, CONFIG, settings)
    await registry.bus.publish("$KV.CONFIG.toys.shop.a", b'{"size":1}')
    toys = Service(name="toy", build=_none, buckets=(CONFIG,), kinds=(Kind(prefix="toys", type=Thing),))

    with pytest.raises(ExceptionGroup) as failure:
        await serve(toys, settings, asyncio.Event())

    expected = r"1 entries .* not signed .*: toys\.shop\.a is not used: it has no signature; `millrace sign`"
    assert failure.group_contains(ConflictError, match=expected)


async def test_no_start_waits_for_an_unsigned_token(registry: Registry, settings: Settings) -> None:
    await ensure(registry.bus, CONFIG, settings)
    await registry.bus.publish("$KV.CONFIG.tokens.abc", b'{"scopes":["admin"],"created_at":"2026-01-01T00:00:00Z"}')

    async with running(Service(name="toy", build=_none, buckets=(CONFIG,)), settings) as service:
        assert [] == service.mesh.registry.view(TOKENS).all()


async def _none(_: Mesh) -> None:
    """A service without parts."""


async def test_a_client_of_nats_that_has_closed_for_good_ends_the_service(toy: Toy, settings: Settings) -> None:
    ready: asyncio.Future[RunningService] = asyncio.get_running_loop().create_future()
    await provision_for(service(toy), settings)
    serving = asyncio.create_task(serve(service(toy), settings, asyncio.Event(), ready))
    running_service = await ready

    # The server takes 4,096 bytes of a line before the body, and closes the connection for more.
    await running_service.mesh.bus.client.publish("x" * 5000, b"")

    with pytest.raises(ExceptionGroup) as failure:
        await serving
    [error] = failure.value.exceptions
    assert isinstance(error, UnavailableError)
    assert error.message.lower() == "the client of nats has closed for good: maximum control line exceeded"


# The library leaves the stream of an attempt that was refused for the garbage collector; the server has closed it.
@pytest.mark.filterwarnings("ignore:.*StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning")
async def test_a_client_that_is_let_in_again_in_time_works_on_and_one_that_is_not_ends_the_service(
    toy: Toy, settings: Settings, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_server = NatsServer(nats_server.directory, users={"operator": make_seed()}, port=nats_server.port)
    ready: asyncio.Future[RunningService] = asyncio.get_running_loop().create_future()
    await provision_for(service(toy), settings)
    serving = asyncio.create_task(serve(service(toy), settings, asyncio.Event(), ready))
    bus = (await ready).mesh.bus

    clock = asyncio.get_running_loop().time
    began: list[float] = []

    async def refuse() -> None:
        began.append(clock())
        await nats_server.kill()
        await other_server.start()

    try:
        with capture_logs() as logs:
            await refuse()
            await until(lambda: "nats: 'Authorization Violation'" in [line.get("message") for line in logs])
        await other_server.kill()
        await nats_server.start()
        await until(lambda: bus.connected)
        assert not serving.done()

        # The first refusals count no more: it would end sooner if they did.
        refused_s = clock() - began[0] + 1
        monkeypatch.setattr(connection, "REFUSED_S", refused_s)
        monkeypatch.setattr(messaging_bus, "CLOSED_CHECK_S", 0.05)
        await refuse()
        with pytest.raises(ExceptionGroup) as failure:
            await serving
        assert clock() - began[1] > refused_s
    finally:
        await other_server.kill()
    [error] = failure.value.exceptions
    assert isinstance(error, UnavailableError)
    assert error.message.endswith("s now: Authorization Violation")


async def test_a_port_in_use_is_one_clear_error(served: RunningService, settings: Settings) -> None:
    port = int(served.url.rpartition(":")[2])
    taken = msgspec.convert(msgspec.to_builtins(settings) | {"http_port": port}, Settings)

    with pytest.raises(Exception, match=rf"HTTP cannot listen on 127.0.0.1:{port}: .*in use"):
        await serve(service(Toy()), taken, asyncio.Event())


async def test_not_ready_while_nats_is_down_and_ready_again_by_itself(
    http: aiohttp.ClientSession, nats_server: NatsServer
) -> None:
    await nats_server.kill()
    async with http.get("/readyz") as gone:
        told = await gone.json()
    await nats_server.restart()
    async with asyncio.timeout(15):
        while True:
            async with http.get("/readyz") as back:
                if back.status == 200:
                    break
            await asyncio.sleep(0.02)

    assert (gone.status, told["ready"], list(told["failing"])) == (503, False, ["nats"])
