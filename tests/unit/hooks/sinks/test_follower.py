"""A change of the configuration of one app, and what it leaves as it is."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from hooks.config import CONNECTORS, HOOKS
from hooks.delivery.advice import TargetAdvice
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.model import CallPolicy
from hooks.delivery.targets import Targets
from hooks.matching.rule import Target
from hooks.sinks import SINKS
from hooks.sinks.catalog import SinkCatalog
from hooks.sinks.follower import ConfigurationFollower
from hooks.sinks.kinesis.config import KinesisConfig
from shared.config.registry import ConfigEntry, Registry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.messaging.bus import Bus
from shared.runtime.telemetry import Metrics
from support.fakes.rules import make_rule
from support.fakes.sink import RecordingDeadLetters, RecordingObserver
from support.loop_watch import HELD_S, LoopWatch


class Scene:
    """The configuration of apps in memory, and the targets that follow it."""

    def __init__(self) -> None:
        bus = cast(Bus, SimpleNamespace(metrics=Metrics(), alert=None))
        registry = Registry(bus, SecretStore([generate_key()]), service="test", relist_s=30)
        self.hooks = registry.view(HOOKS)
        self.kinesis = registry.view(CONNECTORS["kinesis"])
        self.counters = DeliveryCounters(lambda: datetime.now(UTC))
        self.revision = 0
        self.targets = Targets(
            CallPolicy(), observer=RecordingObserver(), dead_letters=RecordingDeadLetters(), metrics=Metrics()
        )
        shared: dict[str, Any] = dict.fromkeys(SINKS)
        self.follower = ConfigurationFollower(
            self.hooks,
            [self.kinesis],
            sinks=SinkCatalog(SINKS, shared, CONNECTORS, registry, allow_private=False),
            targets=self.targets,
            counters=self.counters,
            advice=TargetAdvice(lambda target, message: None),
        )

    async def put_hook(self, app_key: str, hook_id: str, **changes: Any) -> None:
        self.revision += 1
        hook = make_rule(hook_id, app_key, **changes).hook
        self.hooks.put(HOOKS.key(app_key, hook_id), ConfigEntry(app_key, hook_id, hook, self.revision))
        await self.hooks.wait_told()

    async def put_connector(self, app_key: str, *, active: bool = True) -> None:
        self.revision += 1
        entry = ConfigEntry(app_key, "", KinesisConfig(region="eu-west-1", active=active), self.revision)
        self.kinesis.put(self.kinesis.kind.key(app_key), entry)
        await self.kinesis.wait_told()

    async def drop_hook(self, app_key: str, hook_id: str) -> None:
        self.hooks._drop(HOOKS.key(app_key, hook_id))
        await self.hooks.wait_told()


async def make_scene() -> Scene:
    scene = Scene()
    for app_key in ("shop", "rival"):
        await scene.put_connector(app_key)
        await scene.put_hook(app_key, "one")
        await scene.put_hook(app_key, "two")
    scene.follower.follow()
    return scene


async def test_a_changed_hook_leaves_other_apps_and_hooks_as_they_are() -> None:
    scene = await make_scene()
    before = scene.targets.index

    await scene.put_hook("shop", "one", stream_name="returns")

    after = scene.targets.index
    assert before.of_app("rival") is after.of_app("rival")
    assert before.find("shop", "two") is after.find("shop", "two")
    assert Target("shop", "returns") == scene.targets.target_of("shop", "one")
    assert Target("rival", "orders") == scene.targets.target_of("rival", "one")


async def test_a_changed_connector_leaves_other_apps_as_they_are() -> None:
    scene = await make_scene()
    before = scene.targets.index

    await scene.put_connector("shop", active=False)

    assert before.of_app("rival") is scene.targets.index.of_app("rival")
    assert scene.targets.target_of("shop", "one") is None
    assert scene.targets.serves(Target("rival", "orders"))

    await scene.put_connector("shop")

    assert scene.targets.serves(Target("shop", "orders"))


async def test_nothing_stays_of_hooks_that_are_gone() -> None:
    scene = await make_scene()
    for app_key in ("shop", "rival"):
        scene.counters.of(app_key, "one")

    await scene.drop_hook("shop", "one")
    await scene.drop_hook("shop", "two")

    assert scene.targets.target_of("shop", "one") is None
    assert not scene.targets.serves(Target("shop", "orders"))
    assert [("rival", "one")] == [*scene.counters.all()]

    await scene.put_hook("shop", "one")

    assert Target("shop", "orders") == scene.targets.target_of("shop", "one")


async def test_a_change_among_1000_hooks_of_100_apps_does_not_hold_the_loop() -> None:
    scene = Scene()
    codes = [f"code-{number}" for number in range(100)]
    for app in range(100):
        await scene.put_connector(f"app{app}")
        for number in range(10):
            await scene.put_hook(f"app{app}", f"hook{number}", event_code=[f"{code}-{number}" for code in codes])
    scene.follower.follow()

    async with LoopWatch() as watch:
        for number in range(10):
            await asyncio.sleep(0.01)
            await scene.put_hook("app7", "hook3", event_code="login", stream_name=f"orders-{number}")

    assert Target("app7", "orders-9") == scene.targets.target_of("app7", "hook3")
    assert watch.held_s < HELD_S, watch.holder
