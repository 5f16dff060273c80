"""Rules and events of hooks, for unit tests. No test lives here."""

from collections.abc import Mapping
from typing import Any

import msgspec

from hooks.delivery.targets import ActiveConnector
from hooks.matching.hook import Hook
from hooks.matching.rule import HookIndex, Rule, Target
from shared.config.secret import Secret
from shared.contracts.messages import Event, EventType

HOOK: dict[str, Any] = {"name": "Purchases", "stream_name": "orders", "trigger_type": "EVENT", "event_code": "purchase"}
WEBHOOK: dict[str, Any] = HOOK | {
    "type": "WEBHOOK",
    "stream_name": "",
    "url": "https://example.com/hook",
    "secret": Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
}


def make_rule(hook_id: str, app_key: str = "shop", **changes: Any) -> Rule:
    return Rule(app_key=app_key, hook_id=hook_id, revision=7, hook=msgspec.convert(HOOK | changes, Hook))


def make_event(code: str = "purchase", kind: EventType = "event", app_key: str = "shop") -> Event:
    return Event(id="e1", app_key=app_key, type=kind, code=code, user_id="u1", occurred_at=1763780000123)


def by_target(index: HookIndex, connectors: Mapping[str, ActiveConnector]) -> dict[Target, ActiveConnector]:
    """The connector of each target, where `connectors` holds one by app."""
    return {rule.target: one for app_key, one in connectors.items() for rule in index.of_app(app_key).rules.values()}
