"""Every replica keeps out an address that guesses passwords, and serves all others meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import pytest
from msgspec import structs
from structlog.testing import capture_logs

from ftp_gateway.app import SERVICE
from shared.client_addresses import network_of
from shared.contracts import streams
from shared.contracts.keys import defender_key
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import PASSWORD, Gateway, write
from support.run_service import running
from support.waiting import until

HOSTILE = "127.0.0.9"
FAILURES = 5

Start = Callable[[str], Awaitable[Gateway]]


@pytest.fixture
async def start(settings: Settings, host_keys: bytes, http: aiohttp.ClientSession) -> AsyncIterator[Start]:
    """Start a replica, with a folder of its own."""
    async with AsyncExitStack() as stack:

        async def one(name: str) -> Gateway:
            folder = Path(settings.data_dir) / name
            (folder / "ftp").mkdir(parents=True)
            (folder / "ftp" / "host_key").write_bytes(host_keys)
            own = structs.replace(
                settings, data_dir=str(folder), sftp_ban_failures=FAILURES, sftp_connections_per_address=400
            )
            return Gateway(await stack.enter_async_context(running(SERVICE, own)), http)

        yield one


@pytest.fixture
async def gateway(start: Start) -> Gateway:
    gateway = await start("one")
    await gateway.put("/v1/apps/shop", {"settle_s": 600})
    await gateway.user()
    return gateway


@asynccontextmanager
async def from_address(gateway: Gateway, address: str, **options: Any) -> AsyncIterator[None]:
    async with gateway.connect(local_addr=(address, 0), **options):
        yield


async def guess(gateway: Gateway, address: str = HOSTILE, password: str = "wrong-password") -> None:
    """One wrong password, on a connection of its own."""
    with pytest.raises((asyncssh.Error, OSError)):
        async with from_address(gateway, address, password=password):
            pass


class Guesser(asyncssh.SSHClient):
    """A client that tries passwords as often as the server lets it."""

    tried = 0

    def password_auth_requested(self) -> str:
        Guesser.tried += 1
        return f"guess-{Guesser.tried}"


async def guess_on(gateway: Gateway) -> None:
    """Six wrong passwords, on one connection."""
    with pytest.raises((asyncssh.Error, OSError)):
        async with from_address(gateway, HOSTILE, password=None, client_factory=Guesser, preferred_auth="password"):
            pass


async def bans(gateway: Gateway) -> list[str]:
    async with gateway.http.get(f"{gateway.running.url}/v1/bans") as answer:
        assert answer.status == 200
        return [ban["address"] for ban in (await answer.json())["bans"]]


async def lift(gateway: Gateway, address: str) -> int:
    async with gateway.http.delete(f"{gateway.running.url}/v1/bans/{address}") as answer:
        return answer.status


async def test_an_address_is_banned_also_with_the_right_password_and_no_other_is(gateway: Gateway) -> None:
    for _ in range(FAILURES):
        await guess(gateway)

    await guess(gateway, password=PASSWORD)
    async with gateway.sftp() as client:
        await write(client, "/a.csv")
    assert [HOSTILE] == await bans(gateway)


async def test_a_ban_shuts_before_any_word_of_ssh(gateway: Gateway) -> None:
    for _ in range(FAILURES):
        await guess(gateway)

    with contextlib.suppress(ConnectionResetError):
        reader, writer = await asyncio.open_connection(gateway.host, gateway.port, local_addr=(HOSTILE, 0))
        assert b"" == await reader.read(100)
        writer.close()


async def test_all_replicas_know_a_ban_and_its_end(gateway: Gateway, start: Start) -> None:
    other = await start("two")
    with capture_logs() as logs:
        for _ in range(FAILURES):
            await guess(gateway)
        await until(lambda: _is(bans(other), [HOSTILE]))
    # Once by each of the two.
    assert 2 == len([entry for entry in logs if entry["event"] == "address_banned"])
    await guess(other, password=PASSWORD)

    assert 204 == await lift(other, HOSTILE)
    await until(lambda: _is(bans(gateway), []))
    async with from_address(gateway, HOSTILE):
        pass


async def test_a_score_that_cannot_be_read_keeps_nobody_from_banning_its_address(
    gateway: Gateway, start: Start, bus: Bus
) -> None:
    other = await start("two")
    scores = KeyValueStore(bus, streams.DEFENDER)
    await scores.put(defender_key(network_of(HOSTILE)), b'{"type":"io.nats.jetstream.api.v1"}')

    for _ in range(FAILURES):
        await guess(gateway)

    await until(lambda: _is(bans(other), [HOSTILE]))


async def _is(asked: Awaitable[list[str]], expected: list[str]) -> bool:
    return await asked == expected


async def test_guesses_at_several_replicas_add_up(gateway: Gateway, start: Start) -> None:
    other = await start("two")
    for _ in range(3):
        await guess(gateway)
    await until(lambda: _scored(gateway.running.mesh.bus))
    for _ in range(3):
        await guess(other)

    await until(lambda: _is(bans(other), [HOSTILE]))
    await until(lambda: _is(bans(gateway), [HOSTILE]))


async def _scored(bus: Bus) -> bool:
    return bool(await KeyValueStore(bus, streams.DEFENDER).scan())


async def test_a_ban_outlives_the_replica_that_made_it(gateway: Gateway, start: Start, bus: Bus) -> None:
    for _ in range(FAILURES):
        await guess(gateway)
    await until(lambda: _scored(bus))

    later = await start("two")

    await until(lambda: _is(bans(later), [HOSTILE]))


async def test_a_sign_in_is_not_punished_for_the_keys_that_the_agent_offers(gateway: Gateway) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(4)]
    for _ in range(FAILURES):
        async with from_address(gateway, HOSTILE, client_keys=keys):
            pass
    assert [] == await bans(gateway)

    with capture_logs() as logs:
        for _ in range(FAILURES):
            with pytest.raises(asyncssh.PermissionDenied):
                async with from_address(gateway, HOSTILE, client_keys=keys, password=None):
                    pass
        await until(lambda: _is(bans(gateway), [HOSTILE]))
    failed = [entry for entry in logs if entry["event"] == "login_failed"]
    assert [("shop.nightly", HOSTILE, "publickey")] * FAILURES == [
        (entry["login"], entry["address"], entry["method"]) for entry in failed
    ]


async def test_a_ban_is_lifted_by_an_operator_alone_and_only_where_there_is_one(
    gateway: Gateway, shop: dict[str, str]
) -> None:
    assert 404 == await lift(gateway, "203.0.113.7")
    assert 404 == await lift(gateway, "2001:db8::7")
    assert 400 == await lift(gateway, "nowhere")
    async with aiohttp.ClientSession(headers=shop) as tenant:
        for method, path in (("GET", "/v1/bans"), ("DELETE", "/v1/bans/203.0.113.7"), ("GET", "/v1/host-keys")):
            async with tenant.request(method, f"{gateway.running.url}{path}") as answer:
                assert answer.status == 403


async def test_others_are_served_while_someone_tries_300_passwords(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        attack = asyncio.gather(*(guess_on(gateway) for _ in range(50)))
        for number in range(20):
            async with asyncio.timeout(5):
                await write(client, f"/{number}.csv")
        async with asyncio.timeout(20), gateway.sftp() as newcomer:
            assert await newcomer.exists("/19.csv")
        await attack

    assert [HOSTILE] == await bans(gateway)
