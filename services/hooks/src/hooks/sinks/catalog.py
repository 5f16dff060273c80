"""The sinks of a running service: one look-up by the type of a hook. No vendor is known here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hooks.delivery.model import Sink
from hooks.delivery.targets import ActiveConnector
from hooks.matching.hook import Hook
from hooks.matching.rule import Rule, Target
from hooks.sinks.port import SinkFactory
from shared.config.registry import Kind, Registry
from shared.contracts.connection_report import ConnectionReport
from shared.errors import InvalidError


class SinkCatalog:
    """
    Checks, opens and tests sinks.

    Args:
        sinks: The configurations by the type of a hook.
        shared: The objects that `open_shared` of each yields, by the same.
        connectors: The kinds of connectors in the registry, by their id.
        allow_private: Whether addresses inside the operator's network are allowed.
    """

    def __init__(
        self,
        sinks: Mapping[str, type[SinkFactory]],
        shared: Mapping[str, Any],
        connectors: Mapping[str, Kind[Any]],
        registry: Registry,
        *,
        allow_private: bool,
    ) -> None:
        self._sinks = sinks
        self._shared = shared
        self._connectors = connectors
        self._registry = registry
        self._allow_private = allow_private

    def check(self, app_key: str, config: SinkFactory) -> SinkFactory:
        """The configuration as it may be saved. Raises `InvalidError` naming the field."""
        return config.check(allow_private=self._allow_private, app_key=app_key)

    def check_hook(self, app_key: str, hook: Hook) -> Hook:
        """The hook as it may be saved. Raises `InvalidError` naming the field."""
        sink = self._sinks[hook.type]
        hook = hook.checked(sink.hook_fields)
        if (config := sink.of_hook(hook)) is not None:
            self.check(app_key, config)
        return hook

    def connector_of(self, rule: Rule, advise: Callable[[Target, str | None], None]) -> ActiveConnector | None:
        """
        The configuration that opens the target of a rule: its app's connector or the hook itself. None: none is active.

        Args:
            advise: Called with a target and the correction that an operator should make, or None once it is made.
        """
        found = self._config_of(rule)
        if found is None:
            return None
        config, revision = found
        shared = self._shared[rule.hook.type]

        def open_sink(name: str) -> Sink:
            return config.open(shared, name, partial(advise, rule.target))

        return ActiveConnector(revision=revision, open=open_sink)

    def missing_for(self, rule: Rule) -> str | None:
        """Reason for which no sink can be opened for a rule; None where one can."""
        if self._config_of(rule) is not None:
            return None
        sink = self._sinks[rule.hook.type]
        if self._saved(sink, rule.app_key) is None:
            return f"there is no {sink.title} connector"
        return f"the {sink.title} connector is inactive"

    async def test_hook(self, app_key: str, hook: Hook, *, test_record: bool) -> ConnectionReport:
        """
        Test Connection of a checked hook, with its app's saved connector where it needs one.

        Raises:
            NotFoundError: There is no connector.
        """
        sink = self._sinks[hook.type]
        config = sink.of_hook(hook)
        if config is None:
            assert sink.connector is not None
            config = await self._over_saved(app_key, sink.connector, {})
        return await config.test(self._shared[hook.type], hook.stream_name or None, test_record=test_record)

    async def test_connector(
        self, app_key: str, connector: str, form: dict[str, Any], stream_name: str | None, *, test_record: bool
    ) -> ConnectionReport:
        """
        Test Connection of the values of a form over the saved connector's.

        Raises:
            InvalidError: A field is wrong; names it.
            NotFoundError: The form is empty and nothing is saved.
        """
        if test_record and stream_name is None:
            raise InvalidError("required for a test_record", field="stream_name")
        config = await self._over_saved(app_key, connector, form)
        return await config.test(self._shared[config.hook_type], stream_name, test_record=test_record)

    async def _over_saved(self, app_key: str, connector: str, form: dict[str, Any]) -> SinkFactory:
        config: SinkFactory = await self._registry.form_over_saved(self._connectors[connector], app_key, form)
        return self.check(app_key, config)

    def _config_of(self, rule: Rule) -> tuple[SinkFactory, int] | None:
        """The configuration in force that opens a rule's target, and its revision."""
        sink = self._sinks[rule.hook.type]
        if (config := sink.of_hook(rule.hook)) is not None:
            return config, rule.revision
        entry = self._saved(sink, rule.app_key)
        return (entry.value, entry.revision) if entry is not None and entry.value.active else None

    def _saved(self, sink: type[SinkFactory], app_key: str) -> Any:
        assert sink.connector is not None
        return self._registry.view(self._connectors[sink.connector]).get(app_key)
