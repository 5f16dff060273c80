"""The newest configuration of all apps, kept in force. A change of one app leaves the others' rules as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from hooks.delivery.advice import TargetAdvice
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.hook import Hook
from hooks.matching.rule import Rule, Target
from hooks.sinks.catalog import SinkCatalog
from shared.config.registry import ConfigEntry, View


class ConfigurationFollower:
    """
    Keeps `targets` at the newest hooks and connectors, and forgets the counters and advice of hooks that are gone.

    With a change it looks at each entry of all apps, some 0.1 us, and makes anew what hangs on the apps that changed.
    """

    def __init__(
        self,
        hooks: View[Hook],
        connectors: Sequence[View[Any]],
        *,
        sinks: SinkCatalog,
        targets: Targets,
        counters: DeliveryCounters,
        advice: TargetAdvice,
    ) -> None:
        self._hooks = hooks
        self._connectors = connectors
        self._sinks = sinks
        self._targets = targets
        self._counters = counters
        self._advice = advice
        self._seen: Mapping[str, Sequence[ConfigEntry[Any]]] = {}
        self._rules: dict[str, Mapping[str, Rule]] = {}
        self._opened: dict[str, Mapping[Target, ActiveConnector]] = {}

    def follow(self) -> None:
        """Apply the configuration now, and with every change."""
        for view in (self._hooks, *self._connectors):
            view.on_change(self._apply)
        self._apply()

    def _apply(self) -> None:
        entries: dict[str, list[ConfigEntry[Any]]] = {}
        for view in (self._hooks, *self._connectors):
            for entry in view.all():
                entries.setdefault(entry.app_key, []).append(entry)
        seen, self._seen = self._seen, entries
        changed = [app_key for app_key in {**seen, **entries} if seen.get(app_key) != entries.get(app_key)]
        hooks: dict[str, list[ConfigEntry[Hook]]] = {app_key: [] for app_key in changed}
        for entry in self._hooks.all():
            if entry.app_key in hooks:
                hooks[entry.app_key].append(entry)
        for app_key, found in hooks.items():
            self._arrange(app_key, found)
        index = self._targets.index.replace({app_key: self._rules[app_key].values() for app_key in changed})
        connectors = {target: one for opened in self._opened.values() for target, one in opened.items()}
        self._targets.apply(index, connectors)
        for app_key in changed:
            if app_key not in entries:
                del self._rules[app_key], self._opened[app_key]
        self._counters.retain_only({(app_key, id) for app_key, rules in self._rules.items() for id in rules})
        self._advice.retain_only(
            rule.target
            for rules in self._rules.values()
            for rule in rules.values()
            if self._targets.serves(rule.target)
        )

    def _arrange(self, app_key: str, hooks: Sequence[ConfigEntry[Hook]]) -> None:
        before = self._rules.get(app_key, {})
        rules = self._rules[app_key] = {entry.id: _rule(entry, before.get(entry.id)) for entry in hooks}
        opened = ((rule.target, self._sinks.connector_of(rule, self._advice.set)) for rule in rules.values())
        self._opened[app_key] = {target: one for target, one in opened if one is not None}


def _rule(entry: ConfigEntry[Hook], before: Rule | None) -> Rule:
    if before is not None and before.hook is entry.value:
        return before
    return Rule(app_key=entry.app_key, hook_id=entry.id, revision=entry.revision, hook=entry.value)
