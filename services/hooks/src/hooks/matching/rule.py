"""Hooks arranged for matching: a `Rule` is a hook at one revision; the index finds the rules that fire for an event."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from msgspec import Struct

from hooks.matching.hook import ANY, DEFAULT_TYPE, NARROWER, TRIGGERS, Hook, TriggerType
from hooks.matching.routed_event import RoutedEvent
from shared.contracts.messages import EventType

MATCHES_REMEMBERED: Final = 4096
"""Codes come from outside, so their number has no limit."""


class Target(NamedTuple):
    """
    The place where records go: one stream of one app's account, or one hook's own address. Two apps that name the same
    stream have a target each, and so have two webhooks with the same address.

    `stream_name` is the id of a hook that names no stream: its address may hold what must not stand in a log. `sink` is
    the hook's type.
    """

    app_key: str
    stream_name: str
    sink: str = DEFAULT_TYPE


class Rule(Struct, frozen=True, kw_only=True, dict=True, eq=False):
    """A hook as it stands at one revision of the configuration."""

    app_key: str
    hook_id: str
    revision: int
    hook: Hook

    @cached_property
    def target(self) -> Target:
        """The place where its records go. Cached, because it is needed with every event."""
        return Target(self.app_key, self.hook.stream_name or self.hook_id, self.hook.type)

    @cached_property
    def codes(self) -> frozenset[str]:
        """The codes of its hook, with `*` for any. Cached, because a change of another hook of the app needs them."""
        return self.hook.codes


class _TriggerRules(NamedTuple):
    """The rules of one trigger: those for any code, the others with their codes, and all codes of the others."""

    any: tuple[Rule, ...]
    coded: Sequence[tuple[frozenset[str], Rule]]
    codes: frozenset[str]


class AppHooks:
    """The active hooks of one app, arranged for matching. Immutable."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: Mapping[str, Rule] = {rule.hook_id: rule for rule in rules if rule.hook.active}
        by_trigger: dict[TriggerType, list[Rule]] = {}
        for rule in self.rules.values():
            by_trigger.setdefault(rule.hook.trigger_type, []).append(rule)
        self._by_trigger = {trigger: _arrange(found) for trigger, found in by_trigger.items()}

    def match(self, event_type: EventType, code: str) -> tuple[Rule, ...]:
        """The hooks that fire for the events of a type and a code."""
        trigger = TRIGGERS.get(event_type)
        if trigger is None:
            return ()
        narrower, beginnings = NARROWER[event_type]
        if narrower not in self._by_trigger or not code.upper().startswith(beginnings):
            return self._find(trigger, code)
        return self._find(trigger, code) + self._find(narrower, code)

    def _find(self, trigger: TriggerType, code: str) -> tuple[Rule, ...]:
        found = self._by_trigger.get(trigger)
        if found is None:
            return ()
        # A table of rules by code would take 0.4 s for 1,000 hooks of 100 codes, with every change of one.
        if code not in found.codes:
            return found.any
        return (*found.any, *[rule for codes, rule in found.coded if code in codes])


_NO_HOOKS: Final = AppHooks()


class HookIndex:
    """
    Every active hook of every app, arranged for matching. Immutable: a change of the configuration makes a new one, and
    a holder of the old one sees all of the old configuration. Apps that have not changed are the same objects in both.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        by_app: dict[str, list[Rule]] = {}
        for rule in rules:
            by_app.setdefault(rule.app_key, []).append(rule)
        self._apps: Mapping[str, AppHooks] = {app_key: AppHooks(found) for app_key, found in by_app.items()}
        self._matches: dict[tuple[str, EventType, str], tuple[Rule, ...]] = {}

    def replace(self, rules: Mapping[str, Iterable[Rule]]) -> "HookIndex":
        """An index with these rules by app, and those of all other apps."""
        index = HookIndex()
        apps = {**self._apps, **{app_key: AppHooks(found) for app_key, found in rules.items()}}
        index._apps = {app_key: hooks for app_key, hooks in apps.items() if hooks.rules}
        return index

    def of_app(self, app_key: str) -> AppHooks:
        """The hooks of an app."""
        return self._apps.get(app_key, _NO_HOOKS)

    def find(self, app_key: str, hook_id: str) -> Rule | None:
        """The rule of a hook; None where it is not active."""
        return self.of_app(app_key).rules.get(hook_id)

    def changed_since(self, before: "HookIndex") -> frozenset[str]:
        """The apps whose hooks are not the same objects in both."""
        return frozenset(
            app_key
            for app_key in self._apps.keys() | before._apps.keys()
            if self._apps.get(app_key) is not before._apps.get(app_key)
        )

    def match(self, event: "RoutedEvent") -> tuple[Rule, ...]:
        """The hooks that fire."""
        key = (event.app_key, event.type, event.code)
        found = self._matches.get(key)
        if found is None:
            if len(self._matches) >= MATCHES_REMEMBERED:
                self._matches.clear()
            found = self._matches[key] = self.of_app(event.app_key).match(event.type, event.code)
        return found


def _arrange(rules: Sequence[Rule]) -> _TriggerRules:
    coded = [(rule.codes, rule) for rule in rules if ANY not in rule.codes]
    return _TriggerRules(
        any=tuple(rule for rule in rules if ANY in rule.codes),
        coded=coded,
        codes=frozenset().union(*(codes for codes, _ in coded)),
    )
