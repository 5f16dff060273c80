"""Users and apps of the ftp gateway over HTTP: hashed, masked, and applied twice without a change."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import asyncssh
import paramiko
import pytest

from ftp_gateway.app import SERVICE
from ftp_gateway.config import FTP_USERS
from shared.config.registry import Registry
from shared.contracts.streams import CONFIG
from shared.messaging.bus import Bus
from support.clients.ftp_gateway import PASSWORD, Gateway
from support.run_service import RunService

USERS = "/v1/apps/shop/ftp-users"


@pytest.fixture
async def gateway(run_service: RunService, http: aiohttp.ClientSession) -> AsyncIterator[Gateway]:
    """A gateway without users."""
    async with run_service(SERVICE) as running:
        yield Gateway(running, http)


async def stored_hash(registry: Registry) -> str:
    password = (await registry.get(FTP_USERS, "shop", "nightly")).value.password
    assert password is not None
    return password.reveal()


async def test_a_password_is_stored_as_its_hash_and_never_shown(gateway: Gateway, bus: Bus, registry: Registry) -> None:
    await gateway.user()

    async with gateway.http.get(f"{gateway.running.url}{USERS}/nightly") as answer:
        shown = await answer.json()
    at_rest = await bus.last_message(CONFIG, "$KV.CONFIG.ftp_users.shop.nightly")

    assert shown["password"] == "***"
    assert at_rest is not None
    assert PASSWORD.encode() not in at_rest.data
    assert b"argon2" not in at_rest.data
    assert (await stored_hash(registry)).startswith("$argon2id$")


async def test_the_same_user_again_is_no_change(gateway: Gateway, registry: Registry) -> None:
    first = await gateway.user()
    hashed = await stored_hash(registry)

    again = await gateway.user()
    dry = await gateway.put(f"{USERS}/nightly?dry_run=true", {"password": PASSWORD})
    kept = await gateway.put(f"{USERS}/nightly", {"password": "***"})
    added = await gateway.put(f"{USERS}/nightly", {"allowed_ips": ["127.0.0.1"]})

    assert ["created", "unchanged", "unchanged", "unchanged"] == [
        change["change"] for change in (first, again, dry, kept)
    ]
    assert ("updated", ["allowed_ips"]) == (added["change"], added["fields"])
    assert hashed == await stored_hash(registry)


async def test_another_password_replaces_the_first_at_once(gateway: Gateway) -> None:
    await gateway.user()

    changed = await gateway.user(password="another-password")

    assert ("updated", ["password"]) == (changed["change"], changed["fields"])
    async with gateway.connect(password="another-password"):
        pass


BAD: list[tuple[str, dict[str, object], str]] = [
    (f"{USERS}/nightly", {}, "password"),
    (f"{USERS}/nightly", {"password": "short"}, "password"),
    (f"{USERS}/nightly", {"password": PASSWORD, "public_keys": ["no key"]}, "public_keys[0]"),
    (f"{USERS}/nightly", {"password": PASSWORD, "allowed_ips": ["nowhere"]}, "allowed_ips[0]"),
    (f"{USERS}/night.ly", {"password": PASSWORD}, "id"),
    ("/v1/apps/shop", {"timezone": "Nowhere"}, "timezone"),
    ("/v1/apps/shop", {"settle_s": -1}, "settle_s"),
    ("/v1/apps/shop", {"settle": 1}, "settle"),
    ("/v1/apps/shop", {"profile_attributes": {"age": "text"}}, "profile_attributes[...]"),
    ("/v1/apps/shop", {"fallback_encoding": "latin-1"}, "fallback_encoding"),
]


async def test_a_bad_value_is_refused_by_its_field(gateway: Gateway) -> None:
    for path, value, field in BAD:
        async with gateway.http.put(f"{gateway.running.url}{path}", json=value) as answer:
            error = (await answer.json())["error"]

        assert (400, "invalid", field) == (answer.status, error["code"], error["field"])


async def test_a_deleted_user_cannot_sign_in(gateway: Gateway) -> None:
    await gateway.user()
    async with gateway.http.delete(f"{gateway.running.url}{USERS}/nightly") as answer:
        assert answer.status == 204

    with pytest.raises(Exception, match="Permission denied"):
        async with gateway.connect():
            pass


async def test_paramiko_signs_in_by_password_after_a_key_that_was_refused(gateway: Gateway) -> None:
    await gateway.user()

    def sign_in() -> list[str]:
        transport = paramiko.Transport((gateway.host, gateway.port))
        try:
            transport.start_client(timeout=10)
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_publickey("shop.nightly", paramiko.ECDSAKey.generate())
            return transport.auth_password("shop.nightly", PASSWORD)
        finally:
            transport.close()

    assert [] == await asyncio.to_thread(sign_in)


async def test_a_user_without_his_password_has_his_key(gateway: Gateway) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    await gateway.user()

    await gateway.user(password=None, public_keys=[key.export_public_key().decode()])

    async with gateway.connect(password=None, client_keys=[key]):
        pass
    with pytest.raises(asyncssh.PermissionDenied):
        async with gateway.connect():
            pass


async def test_deletion_of_an_app_tells_what_remains_and_how_all_is_deleted(gateway: Gateway) -> None:
    await gateway.user()
    await gateway.put("/v1/apps/shop", {"timezone": "Europe/Istanbul"})

    async with gateway.http.delete(f"{gateway.running.url}/v1/apps/shop") as answer:
        remains = await answer.json()

    assert (answer.status, remains["ftp_users"], remains["remotes"]) == (200, ["nightly"], [])
    assert "millrace app delete shop --yes" in remains["elsewhere"]


async def test_app_that_would_stand_for_no_app_is_refused_with_the_reason(gateway: Gateway) -> None:
    async with gateway.http.put(f"{gateway.running.url}/v1/apps/-", json={}) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["field"], error["message"]) == (
        400,
        "app_key",
        "expected another key: '-' stands for no app",
    )
