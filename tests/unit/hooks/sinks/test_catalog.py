"""The look-up of sinks: each opens the target of a hook, and satisfies the port."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hooks.config import CONNECTORS
from hooks.delivery.targets import ActiveConnector
from hooks.matching.rule import Rule
from hooks.sinks import SINKS
from hooks.sinks.catalog import SinkCatalog
from hooks.sinks.kinesis.config import KinesisConfig
from hooks.sinks.port import SinkFactory
from hooks.sinks.webhook.config import WebhookConfig
from shared.config.registry import ConfigEntry, Registry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.messaging.bus import Bus
from shared.runtime.telemetry import Metrics
from support.fakes.rules import WEBHOOK, make_rule

OF_THE_PORT: dict[str, type[SinkFactory]] = {"KINESIS": KinesisConfig, "WEBHOOK": WebhookConfig}


@pytest.fixture
def registry() -> Registry:
    bus = cast(Bus, SimpleNamespace(metrics=Metrics(), alert=None))
    return Registry(bus, SecretStore([generate_key()]), service="test", relist_s=30)


@pytest.fixture
def catalog(registry: Registry) -> SinkCatalog:
    shared: dict[str, Any] = dict.fromkeys(SINKS)
    return SinkCatalog(SINKS, shared, CONNECTORS, registry, allow_private=False)


def save_connector(registry: Registry, *, active: bool) -> None:
    entry = ConfigEntry("shop", "", KinesisConfig(region="eu-west-1", active=active), 5)
    registry.view(CONNECTORS["kinesis"]).put("connectors.shop.kinesis", entry)


def connector_of(catalog: SinkCatalog, rule: Rule) -> ActiveConnector | None:
    return catalog.connector_of(rule, lambda target, advice: None)


def test_the_look_up_holds_every_sink() -> None:
    assert dict(SINKS) == OF_THE_PORT
    assert ["kinesis"] == list(CONNECTORS)


async def test_a_stream_is_opened_by_the_connector_of_its_app(registry: Registry, catalog: SinkCatalog) -> None:
    save_connector(registry, active=True)

    ours, theirs = connector_of(catalog, make_rule("h0")), connector_of(catalog, make_rule("h0", "rival"))

    assert ours is not None
    assert 5 == ours.revision
    assert theirs is None


def test_a_webhook_is_opened_by_itself(catalog: SinkCatalog) -> None:
    one, two = (connector_of(catalog, make_rule(hook_id, **WEBHOOK)) for hook_id in ("h1", "h2"))

    assert one is not None
    assert two is not None
    assert (7, 7) == (one.revision, two.revision)


@pytest.mark.parametrize(
    ("active", "told"),
    [(None, "there is no Kinesis connector"), (False, "the Kinesis connector is inactive"), (True, None)],
)
async def test_a_missing_connector_is_named(
    registry: Registry, catalog: SinkCatalog, active: bool | None, told: str | None
) -> None:
    if active is not None:
        save_connector(registry, active=active)

    assert told == catalog.missing_for(make_rule("h0"))
    assert (told is None) == (connector_of(catalog, make_rule("h0")) is not None)
    assert catalog.missing_for(make_rule("h1", **WEBHOOK)) is None
