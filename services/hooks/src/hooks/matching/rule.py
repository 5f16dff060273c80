"""Hooks arranged for matching: a `Rule` is a hook at one revision; the index finds the rules that fire for an event."""

from collections.abc import Iterable, Mapping
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


class HookIndex:
    """
    Every active hook of every app, arranged for matching. Immutable: a change of the configuration makes a new one, and
    a holder of the old one sees all of the old configuration.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: Mapping[tuple[str, str], Rule] = {
            (rule.app_key, rule.hook_id): rule for rule in rules if rule.hook.active
        }
        self._any: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._by_code: dict[tuple[str, str, str], tuple[Rule, ...]] = {}
        coded: list[tuple[str, Rule]] = []
        self._narrower = {(rule.app_key, rule.hook.trigger_type) for rule in self.rules.values()}
        self._matches: dict[tuple[str, EventType, str], tuple[Rule, ...]] = {}
        for rule in self.rules.values():
            codes = rule.hook.codes
            if ANY in codes:
                pair = (rule.app_key, rule.hook.trigger_type)
                self._any[pair] = (*self._any.get(pair, ()), rule)
            else:
                coded += [(code, rule) for code in codes]
        for code, rule in coded:
            pair = (rule.app_key, rule.hook.trigger_type)
            self._by_code[*pair, code] = (*self._by_code.get((*pair, code), self._any.get(pair, ())), rule)

    def match(self, event: "RoutedEvent") -> tuple[Rule, ...]:
        """The hooks that fire."""
        key = (event.app_key, event.type, event.code)
        found = self._matches.get(key)
        if found is None:
            if len(self._matches) >= MATCHES_REMEMBERED:
                self._matches.clear()
            found = self._matches[key] = self._match(*key)
        return found

    def _match(self, app_key: str, event_type: EventType, code: str) -> tuple[Rule, ...]:
        trigger = TRIGGERS.get(event_type)
        if trigger is None:
            return ()
        narrower, codes = NARROWER[event_type]
        if (app_key, narrower) not in self._narrower or not code.upper().startswith(codes):
            return self._find(app_key, trigger, code)
        return self._find(app_key, trigger, code) + self._find(app_key, narrower, code)

    def _find(self, app_key: str, trigger: TriggerType, code: str) -> tuple[Rule, ...]:
        found = self._by_code.get((app_key, trigger, code))
        return self._any.get((app_key, trigger), ()) if found is None else found
