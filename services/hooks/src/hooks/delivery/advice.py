"""Advice to operators by target, whose records are sent but whose setup needs a correction. Reported once."""

from collections.abc import Callable, Iterable

from hooks.matching.rule import Target


class TargetAdvice:
    """The current advice of all targets. `notify` is called with each new one."""

    def __init__(self, notify: Callable[[Target, str], None]) -> None:
        self._notify = notify
        self._current: dict[Target, str] = {}

    def set(self, target: Target, message: str | None) -> None:
        """Set the advice for a target; None clears it."""
        if message is None:
            self._current.pop(target, None)
        elif self._current.get(target) != message:
            self._current[target] = message
            self._notify(target, message)

    def of(self, target: Target) -> str | None:
        """The advice for a target, if there is one."""
        return self._current.get(target)

    def retain_only(self, targets: Iterable[Target]) -> None:
        """Forget every target but these. The iterable is read only where there is something to forget."""
        if self._current:
            retained = set(targets)
            self._current = {target: message for target, message in self._current.items() if target in retained}
