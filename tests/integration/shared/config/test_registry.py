"""Configuration in `CONFIG`: typed, sealed, live."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from millrace.nats_servers.server import NatsServer
from shared.config.registry import Kind, Registry, View
from shared.config.secret import Secret
from shared.config.secret_keys import SecretKeys, UnsignedError, generate_key
from shared.config.secret_store import SecretStore
from shared.config.signed_store import SIGNATURE
from shared.config.tokens import Token, authenticate, new_token, token_hash
from shared.contracts.messages import Alert, decode
from shared.contracts.streams import ALERTS, CONFIG
from shared.errors import ConflictError, InvalidError, NotFoundError, UnauthenticatedError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.provisioning.making import ensure
from shared.runtime.logs import redactor
from shared.runtime.settings import Settings
from support.waiting import until


class Thing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    size: int
    key: Secret = Secret("")


THINGS: Kind[Thing] = Kind(prefix="hooks", type=Thing)
ONE: Kind[Thing] = Kind(prefix="connectors", type=Thing, fixed_id="kinesis")


@pytest.fixture(autouse=True)
async def streams(bus: Bus, settings: Settings) -> None:
    for spec in (CONFIG, ALERTS):
        await ensure(bus, spec, settings)


@pytest.fixture
async def view(registry: Registry) -> AsyncIterator[View[Thing]]:
    """A view that is being kept."""
    view = registry.view(THINGS)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(view.run())
        await view.listed.wait()
        yield view
        keeping.cancel()


async def test_what_is_put_can_be_got(registry: Registry) -> None:
    entry = await registry.put(THINGS, "shop", "a", Thing(size=1, key=Secret("hunter2")))

    assert await registry.get(THINGS, "shop", "a") == entry
    assert (entry.app_key, entry.id, entry.value.key.reveal()) == ("shop", "a", "hunter2")


async def test_a_kind_with_one_value_an_app_has_no_id(registry: Registry) -> None:
    await registry.put(ONE, "shop", "", Thing(size=1))

    assert [(entry.app_key, entry.id) for entry in await registry.list(ONE)] == [("shop", "")]
    assert ONE.key("shop") == "connectors.shop.kinesis"


async def test_secrets_are_sealed_at_rest(registry: Registry, bus: Bus) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=1, key=Secret("hunter2")))

    message = await bus.last_message(CONFIG, "$KV.CONFIG.hooks.shop.a")

    assert message is not None
    assert b"hunter2" not in message.data
    assert b"fernet:" in message.data


async def test_a_form_is_merged_over_the_saved_entry(registry: Registry) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=1, key=Secret("hunter2")))

    left_out = await registry.form_over_saved(THINGS, "shop", {"size": 2}, "a")
    masked = await registry.form_over_saved(THINGS, "shop", {"size": 2, "key": "***"}, "a")
    other = await registry.form_over_saved(THINGS, "shop", {"key": "hunter3"}, "a")
    saved = await registry.form_over_saved(THINGS, "shop", {}, "a")

    assert (2, "hunter2") == (left_out.size, left_out.key.reveal())
    assert left_out == masked
    assert (1, "hunter3") == (other.size, other.key.reveal())
    assert (1, "hunter2") == (saved.size, saved.key.reveal())
    assert "hunter3" not in redactor.text("hunter3")


async def test_a_form_alone_is_enough_and_nothing_at_all_is_not(registry: Registry) -> None:
    alone = await registry.form_over_saved(THINGS, "shop", {"size": 3, "key": "hunter4"}, "new")

    assert (3, "hunter4") == (alone.size, alone.key.reveal())
    with pytest.raises(NotFoundError):
        await registry.form_over_saved(THINGS, "shop", {}, "new")
    with pytest.raises(InvalidError) as caught:
        await registry.form_over_saved(THINGS, "shop", {"size": "large"}, "new")
    assert "size" == caught.value.field


async def test_a_revision_that_has_passed_is_refused(registry: Registry) -> None:
    first = await registry.put(THINGS, "shop", "a", Thing(size=1), expect_revision=0)
    await registry.put(THINGS, "shop", "a", Thing(size=2), expect_revision=first.revision)

    with pytest.raises(ConflictError):
        await registry.put(THINGS, "shop", "a", Thing(size=3), expect_revision=first.revision)
    with pytest.raises(ConflictError):
        await registry.put(THINGS, "shop", "a", Thing(size=3), expect_revision=0)


async def test_a_deleted_entry_is_not_found_and_can_be_created_again(registry: Registry) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=1))
    await registry.delete(THINGS, "shop", "a")

    with pytest.raises(NotFoundError):
        await registry.get(THINGS, "shop", "a")
    with pytest.raises(NotFoundError):
        await registry.delete(THINGS, "shop", "a")
    assert await registry.list(THINGS) == []
    await registry.put(THINGS, "shop", "a", Thing(size=2), expect_revision=0)


async def test_a_list_is_one_apps(registry: Registry) -> None:
    for app, id in (("shop", "a"), ("shop", "b"), ("shopper", "c")):
        await registry.put(THINGS, app, id, Thing(size=1))

    assert {entry.id for entry in await registry.list(THINGS, "shop")} == {"a", "b"}
    assert {entry.id for entry in await registry.list(THINGS)} == {"a", "b", "c"}


@pytest.mark.parametrize(("app", "id"), [("a.b", "x"), ("shop", "x.y"), ("*", "x"), ("shop", ">"), ("shop", "")])
async def test_a_key_that_reaches_elsewhere_is_refused(registry: Registry, app: str, id: str) -> None:
    with pytest.raises(InvalidError):
        await registry.put(THINGS, app, id, Thing(size=1))


async def test_a_view_follows_every_change(
    registry: Registry, view: View[Thing], bus: Bus, secrets: SecretStore
) -> None:
    changes: list[int] = []
    view.on_change(lambda: changes.append(len(view.all())))
    elsewhere = Registry(bus, secrets, service="other", relist_s=30)

    await elsewhere.put(THINGS, "shop", "a", Thing(size=1))
    await until(lambda: (entry := view.get("shop", "a")) is not None and entry.value.size == 1)
    await elsewhere.put(THINGS, "shop", "a", Thing(size=2))
    await until(lambda: (entry := view.get("shop", "a")) is not None and entry.value.size == 2)
    await elsewhere.delete(THINGS, "shop", "a")
    await until(lambda: view.get("shop", "a") is None)

    assert changes == [1, 1, 0]


async def test_a_writer_reads_its_own_write_at_once(registry: Registry, view: View[Thing]) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=7))

    entry = view.get("shop", "a")

    assert entry is not None
    assert entry.value.size == 7


async def test_a_bad_revision_is_refused_with_an_alert_and_the_last_good_one_stays(
    registry: Registry, view: View[Thing], bus: Bus
) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=1))

    revision = (await registry.entries.put("hooks.shop.a", b'{"size":"hunter2-large"}')).revision

    async with asyncio.timeout(10), open_scan(bus, ALERTS, subject="alerts.test.shop.config-refused") as scan:
        alert = decode((await scan.next(1))[0].data, Alert)
    entry = view.get("shop", "a")
    assert f"revision {revision} of hooks.shop.a is refused" in alert.message
    assert "Expected `int`, got `str` (size)" in alert.message
    assert entry is not None
    assert entry.value.size == 1


async def test_a_view_survives_the_server_being_killed(
    registry: Registry, view: View[Thing], bus: Bus, nats_server: NatsServer
) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=1))
    await nats_server.kill()
    await nats_server.restart()
    await until(lambda: bus.connected)

    await registry.entries.put("hooks.shop.b", msgspec.json.encode({"size": 2}))

    await until(lambda: view.get("shop", "b") is not None)
    assert view.get("shop", "a") is not None


async def test_a_full_read_now_and_then_mends_a_watch_that_died(bus: Bus, secrets: SecretStore) -> None:
    registry = Registry(bus, secrets, service="test", relist_s=0.2)
    view = registry.view(THINGS)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(view.run())
        await view.listed.wait()
        await asyncio.sleep(0)
        for info in await bus.js.consumers_info(CONFIG.stream):
            await bus.js.delete_consumer(CONFIG.stream, info.name)
        await registry.entries.put("hooks.shop.a", b'{"size":5}')

        await until(lambda: view.get("shop", "a") is not None)
        keeping.cancel()


FORGED = {"none": None, "of another mesh": generate_key(), "of another entry": ""}


@pytest.mark.parametrize("signer", FORGED.values(), ids=FORGED)
async def test_an_entry_that_the_secret_keys_have_not_signed_is_not_used(
    registry: Registry, view: View[Thing], bus: Bus, secrets: SecretStore, signer: str | None
) -> None:
    await registry.put(THINGS, "shop", "a", Thing(size=1))
    good = await registry.put(THINGS, "shop", "b", Thing(size=2))
    data = secrets.encode_sealed(good.value)
    headers = {}
    if signer is not None:
        keys = SecretKeys([signer]) if signer else secrets.keys
        headers = {SIGNATURE: keys.sign("hooks.shop.b", data)}

    await bus.publish("$KV.CONFIG.hooks.shop.a", data, headers=headers)

    await until(lambda: view.unsigned)
    with pytest.raises(UnsignedError, match=r"hooks\.shop\.a is not used"):
        await registry.get(THINGS, "shop", "a")
    assert ["b"] == [entry.id for entry in await registry.list(THINGS)]
    assert [1, 2] == [entry.value.size for entry in view.all()]

    await registry.delete(THINGS, "shop", "a")
    await until(lambda: not view.unsigned and view.get("shop", "a") is None)


@pytest.mark.parametrize("signed", [True, False])
async def test_only_a_signed_token_opens_anything(registry: Registry, bus: Bus, signed: bool) -> None:
    token = new_token()
    data = registry.secrets.encode_sealed(Token(scopes=("admin",), created_at=datetime.now(UTC)))
    headers = {SIGNATURE: registry.secrets.keys.sign(f"tokens.{token_hash(token)}", data)} if signed else {}
    await bus.publish(f"$KV.CONFIG.tokens.{token_hash(token)}", data, headers=headers)

    if signed:
        assert ("admin",) == (await authenticate(registry, f"Bearer {token}")).scopes
    else:
        with pytest.raises(UnauthenticatedError, match="has no signature of this mesh"):
            await authenticate(registry, f"Bearer {token}")
        assert b'millrace_config_refused_total{kind="tokens"} 1.0' in bus.metrics.render()


async def test_a_service_takes_a_new_key_from_the_file_without_a_restart(bus: Bus, tmp_path: Path) -> None:
    old, new, file = generate_key(), generate_key(), tmp_path / "secret-keys"
    file.write_text(old)
    running = Registry(bus, SecretStore([old], file), service="test", relist_s=0.05)
    view = running.view(THINGS)
    operator = Registry(bus, SecretStore([new, old]), service="test", relist_s=30)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(view.run())
        await running.put(THINGS, "shop", "a", Thing(size=1, key=Secret("hunter2")))
        await operator.put(THINGS, "shop", "a", Thing(size=2, key=Secret("hunter2")))
        await until(lambda: view.unsigned)

        file.write_text(f"{new},{old}")

        await until(lambda: (entry := view.get("shop", "a")) is not None and entry.value.size == 2)
        assert not view.unsigned
        await running.put(THINGS, "shop", "b", Thing(size=3, key=Secret("hunter3")))
        keeping.cancel()
    only_new = Registry(bus, SecretStore([new]), service="test", relist_s=30)
    assert "hunter3" == (await only_new.get(THINGS, "shop", "b")).value.key.reveal()
