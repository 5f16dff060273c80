"""The operator's actions over NATS: tokens and new keys for secrets, on a server with users."""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import InvalidToken
from msgspec import Struct

from millrace.mesh.access import USER, Access, find_access, open_registry
from millrace.mesh.unsigned import UnsignedEntry, check_keys, find_unsigned, sign_entry
from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer
from millrace.verbs.rekey import RekeyResult, rekey
from millrace.verbs.sign import choose
from millrace.verbs.token import create, revoke
from shared.config.registry import Kind, Registry
from shared.config.secret import Secret
from shared.config.secret_keys import SecretKeys, generate_key
from shared.config.tokens import TOKENS, authenticate, token_hash
from shared.contracts import streams
from shared.errors import ConflictError, InvalidError, NotFoundError, UnauthenticatedError
from shared.messaging.connection import connect
from shared.messaging.kv import KeyValue, KeyValueStore
from shared.messaging.provisioning.making import provision_mesh
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.stored_messages import messages

FORGED, KNOWN = f"aa{'0' * 62}", f"ab{'0' * 62}"
"""Hashes of tokens."""
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
Open = Callable[[str], AbstractAsyncContextManager[Registry]]


class Connector(Struct, frozen=True, kw_only=True):
    """Something with a secret."""

    region: str
    secret_key: Secret


CONNECTORS = Kind(prefix="connectors", type=Connector, fixed_id="kinesis")


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """The configuration, opened with these keys for secrets."""
    seeds = ensure_seeds(tmp_path / "keys")
    seed = seeds[USER]
    async with NatsServer(tmp_path / "nats", users=seeds) as server:
        await provision_mesh(Settings(nats_url=server.url, nats_seed=seeds["provision"]), wait_s=5)
        yield lambda keys: open_registry(Access(nats_url=server.url, seed=seed, secret_keys=keys))


@pytest.fixture
async def registry(opened: Open) -> AsyncIterator[Registry]:
    async with opened(generate_key()) as registry:
        yield registry


async def test_token_is_good_until_it_is_revoked(registry: Registry) -> None:
    token = await create(registry, ("app:shop",), "the shop", now=NOW)

    assert ("app:shop",) == (await authenticate(registry, f"Bearer {token}")).scopes
    await revoke(registry, token_hash(token)[:8].upper())
    with pytest.raises(UnauthenticatedError):
        await authenticate(registry, f"Bearer {token}")


async def test_only_the_hash_of_a_token_is_kept(registry: Registry) -> None:
    token = await create(registry, ("admin",), "", now=NOW)

    (entry,) = await registry.list(TOKENS)
    stored = await KeyValueStore(registry.bus, streams.CONFIG).get(f"tokens.{entry.app_key}")

    assert token_hash(token) == entry.app_key
    assert stored is not None
    assert token.encode() not in stored.data


@pytest.mark.parametrize("scope", ["root", "app:", "app:a b", "app:-", "ADMIN"])
async def test_token_of_no_scope_is_refused(registry: Registry, scope: str) -> None:
    with pytest.raises(InvalidError, match=r"expected (admin, metrics or app|another app)"):
        await create(registry, (scope,), "", now=NOW)


async def test_revoking_needs_one_token_and_no_other(registry: Registry) -> None:
    for _ in range(17):
        await create(registry, ("app:shop",), "", now=NOW)
    first = sorted(entry.app_key[0] for entry in await registry.list(TOKENS))
    twice = next(digit for digit in first if first.count(digit) > 1)

    with pytest.raises(InvalidError, match="give more of the hash"):
        await revoke(registry, twice)
    with pytest.raises(NotFoundError):
        await revoke(registry, "xyz")
    with pytest.raises(NotFoundError):
        await revoke(registry, "")


async def test_rekey_leaves_nothing_that_needs_the_old_key(opened: Open) -> None:
    old, new = generate_key(), generate_key()
    async with opened(old) as registry:
        await registry.put(CONNECTORS, "shop", "", Connector(region="eu", secret_key=Secret("s3cret")))
        await create(registry, ("admin",), "", now=NOW)

    async with opened(f"{new},{old}") as registry:
        assert RekeyResult(changed=2, current=0, refused=()) == await rekey(registry)
        assert RekeyResult(changed=0, current=2, refused=()) == await rekey(registry)

    async with opened(new) as registry:
        assert not await find_unsigned(registry)
        assert "s3cret" == (await registry.get(CONNECTORS, "shop")).value.secret_key.reveal()


async def test_rekey_names_entries_that_no_key_verifies_or_decrypts_and_continues(opened: Open) -> None:
    old, new = generate_key(), generate_key()
    for app, key in (("lost", generate_key()), ("shop", old), ("partly", old)):
        async with opened(key) as registry:
            await registry.put(CONNECTORS, app, "", Connector(region="eu", secret_key=Secret("s3cret")))
    async with opened(old) as registry:
        await registry.put(CONNECTORS, "partly", "", Connector(region="fernet:eu", secret_key=Secret("s3cret")))

    async with opened(f"{new},{old}") as registry:
        outcome = await rekey(registry)

    assert 2 == outcome.changed
    assert [
        "connectors.lost.kinesis is not used: it is signed with a key that is not among the secret keys;"
        " `millrace sign` shows such entries",
        "connectors.partly.kinesis: region: no key decrypts this secret",
    ] == sorted(outcome.refused)
    async with opened(new) as registry:
        assert "s3cret" == (await registry.get(CONNECTORS, "partly")).value.secret_key.reveal()


async def test_file_of_other_keys_is_named(opened: Open) -> None:
    old, file = generate_key(), Path("secret-keys")
    async with opened(old) as registry:
        await check_keys(registry, file)
        await create(registry, ("admin",), "", now=NOW)
        await check_keys(registry, file)

    async with opened(generate_key()) as registry:
        with pytest.raises(InvalidError, match="signed none of its 1 entries") as caught:
            await check_keys(registry, file)
        assert "secret-keys" == caught.value.field
        # One entry of the new keys is enough: somebody has begun with them on purpose.
        await create(registry, ("admin",), "", now=NOW)
        await check_keys(registry, file)


async def secrets_in_bucket(registry: Registry, *keys: str) -> list[str]:
    """Every secret that one of the keys decrypts, in every message of the bucket's stream."""
    every = SecretKeys(keys)
    found = []
    for message in await messages(registry.bus, streams.CONFIG, streams.CONFIG.subject_of(">")):
        for token in re.findall(rb"fernet:([A-Za-z0-9_=-]+)", message.data):
            with contextlib.suppress(InvalidToken):
                found.append(every.decrypt(token.decode()))
    return found


async def leave_entries_of_a_release_before(registry: Registry) -> None:
    """Entries with secrets that were replaced, and one that was deleted, without signatures."""
    for app, secret in (("shop", "first"), ("shop", "second"), ("gone", "third")):
        value = Connector(region="eu", secret_key=Secret(secret))
        await registry.bus.publish(f"$KV.CONFIG.connectors.{app}.kinesis", registry.secrets.encode_sealed(value))
    await registry.bus.publish("$KV.CONFIG.connectors.gone.kinesis", b"", headers={"KV-Operation": "DEL"})


async def test_secrets_that_were_replaced_or_deleted_are_gone(opened: Open) -> None:
    key = generate_key()
    async with opened(key) as registry:
        for secret in ("first", "second"):
            value = Connector(region="eu", secret_key=Secret(secret))
            for app in ("shop", "gone"):
                await registry.put(CONNECTORS, app, "", value)
        await registry.delete(CONNECTORS, "gone")

        assert ["second"] == await secrets_in_bucket(registry, key)


async def test_provisioning_takes_the_history_of_a_release_before_with_its_secrets(tmp_path: Path) -> None:
    key = generate_key()
    seeds = ensure_seeds(tmp_path / "keys")
    async with NatsServer(tmp_path / "nats", users=seeds) as server:
        provisioner = Settings(nats_url=server.url, nats_seed=seeds["provision"])
        await provision_mesh(provisioner, wait_s=5)
        async with connect("provision", server.url, seed=seeds["provision"], metrics=Metrics()) as bus:
            config = json.loads((await bus.client.request("$JS.API.STREAM.INFO.KV_CONFIG", b"")).data)["config"]
            body = json.dumps(config | {"max_msgs_per_subject": 10, "allow_rollup_hdrs": False}).encode()
            assert "error" not in json.loads((await bus.client.request("$JS.API.STREAM.UPDATE.KV_CONFIG", body)).data)
        async with open_registry(Access(nats_url=server.url, seed=seeds[USER], secret_keys=key)) as registry:
            await leave_entries_of_a_release_before(registry)
            assert {"first", "second", "third"} == set(await secrets_in_bucket(registry, key))

            await provision_mesh(provisioner, wait_s=5)

            assert ["second"] == await secrets_in_bucket(registry, key)


async def test_rekey_leaves_no_secret_under_the_old_key(opened: Open) -> None:
    old, new = generate_key(), generate_key()
    async with opened(old) as registry:
        await leave_entries_of_a_release_before(registry)
        for entry in await find_unsigned(registry):
            await sign_entry(registry, entry.stored)

    async with opened(f"{new},{old}") as registry:
        assert RekeyResult(changed=1, current=0, refused=()) == await rekey(registry)

        assert [] == await secrets_in_bucket(registry, old)
        assert ["second"] == await secrets_in_bucket(registry, new)


async def test_entries_of_a_release_before_are_shown_and_signed_by_name(opened: Open) -> None:
    key = generate_key()
    async with opened(key) as registry:
        await leave_entries_of_a_release_before(registry)
        for hashed in (FORGED, KNOWN):
            await registry.bus.publish(
                f"$KV.CONFIG.tokens.{hashed}", b'{"scopes":["admin"],"created_at":"2026-01-01T00:00:00Z"}'
            )

        found = await find_unsigned(registry)
        for entry in choose(found, [f"tokens.{KNOWN[:12]}"], True):
            await sign_entry(registry, entry.stored)

        assert ["connectors.shop.kinesis", f"tokens.{FORGED[:12]}", f"tokens.{KNOWN[:12]}"] == [e.name for e in found]
        assert ["it has no signature"] * 3 == [entry.reason for entry in found]
        assert [f"tokens.{FORGED}"] == [entry.stored.key for entry in await find_unsigned(registry)]
        assert [KNOWN] == [entry.app_key for entry in await registry.list(TOKENS)]
        assert "second" == (await registry.get(CONNECTORS, "shop")).value.secret_key.reveal()


async def test_an_entry_is_signed_as_it_was_shown_or_not_at_all(registry: Registry) -> None:
    subject = f"$KV.CONFIG.tokens.{KNOWN}"
    await registry.bus.publish(subject, b'{"scopes":["app:shop"]}')
    (shown,) = await find_unsigned(registry)
    await registry.bus.publish(subject, b'{"scopes":["admin"]}')

    with pytest.raises(ConflictError, match="has changed since it was read"):
        await sign_entry(registry, shown.stored)


@pytest.mark.parametrize(
    ("name", "error"), [("tokens.", NotFoundError), ("hooks.shop", NotFoundError), ("tokens.a", InvalidError)]
)
def test_names_choose_one_entry_each(name: str, error: type[Exception]) -> None:
    found = [
        UnsignedEntry(KeyValue(key, b"{}", 1), "it has no signature")
        for key in ("hooks.shop.a", f"tokens.{FORGED}", f"tokens.{KNOWN}")
    ]

    with pytest.raises(error):
        choose(found, [name], False)


def test_error_without_a_mesh_names_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="`millrace up` starts one"):
        find_access(tmp_path)


def test_environment_names_the_mesh_before_the_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_NATS_URL", "nats://nats.example:4222")
    with pytest.raises(InvalidError) as caught:
        find_access(tmp_path)
    monkeypatch.setenv("MILLRACE_NATS_SEED", "SUSEED")
    monkeypatch.setenv("MILLRACE_SECRET_KEYS", "key")

    assert "MILLRACE_NATS_SEED_FILE" == caught.value.field
    assert "nats://nats.example:4222" == find_access(tmp_path).nats_url
