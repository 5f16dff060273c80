"""The operator's actions over NATS: tokens and new keys for secrets, on a server with users."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Struct

from millrace.mesh.access import USER, Access, find_access, open_registry
from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer
from millrace.verbs.rekey import RekeyResult, rekey
from millrace.verbs.token import create, revoke
from shared.config.registry import Kind, Registry
from shared.config.secret import Secret
from shared.config.secret_store import generate_key
from shared.config.tokens import TOKENS, authenticate, token_hash
from shared.contracts import streams
from shared.errors import InvalidError, NotFoundError, UnauthenticatedError
from shared.messaging.streams import ensure
from shared.runtime.settings import Settings

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
    seed = ensure_seeds(tmp_path / "keys")[USER]
    async with NatsServer(tmp_path / "nats", users=ensure_seeds(tmp_path / "keys")) as server:
        first = Access(nats_url=server.url, seed=seed, secret_keys=generate_key())
        async with open_registry(first) as registry:
            await ensure(registry.bus, streams.CONFIG, Settings())
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
    stored = await registry.bus.last_message(streams.CONFIG, f"$KV.CONFIG.tokens.{entry.app_key}")

    assert token_hash(token) == entry.app_key
    assert stored is not None
    assert token.encode() not in stored.data


@pytest.mark.parametrize("scope", ["root", "app:", "app:a b", "ADMIN"])
async def test_token_of_no_scope_is_refused(registry: Registry, scope: str) -> None:
    with pytest.raises(InvalidError, match="expected admin or app"):
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
        assert RekeyResult(changed=1, current=1, refused=()) == await rekey(registry)
        assert RekeyResult(changed=0, current=2, refused=()) == await rekey(registry)

    async with opened(new) as registry:
        assert "s3cret" == (await registry.get(CONNECTORS, "shop")).value.secret_key.reveal()


async def test_rekey_names_entries_that_no_key_decrypts_and_continues(opened: Open) -> None:
    old, new = generate_key(), generate_key()
    for app, key in (("lost", generate_key()), ("shop", old)):
        async with opened(key) as registry:
            await registry.put(CONNECTORS, app, "", Connector(region="eu", secret_key=Secret("s3cret")))

    async with opened(f"{new},{old}") as registry:
        outcome = await rekey(registry)

    assert 1 == outcome.changed
    assert ["connectors.lost.kinesis: secret_key"] == [refusal.rpartition(":")[0] for refusal in outcome.refused]


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
