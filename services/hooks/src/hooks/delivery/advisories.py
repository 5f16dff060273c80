"""
What an operator should mend although records go out, by target. Told on `alerts` once, and shown until it is mended.
"""

from collections.abc import Callable, Iterable

from hooks.matching.rule import Target


class Advisories:
    """`notify` is called with what is new."""

    def __init__(self, notify: Callable[[Target, str], None]) -> None:
        self._notify = notify
        self._current: dict[Target, str] = {}

    def set(self, target: Target, message: str | None) -> None:
        """Something should be mended; None says that it is."""
        if message is None:
            self._current.pop(target, None)
        elif self._current.get(target) != message:
            self._current[target] = message
            self._notify(target, message)

    def of(self, target: Target) -> str | None:
        """What should be mended for a target."""
        return self._current.get(target)

    def keep(self, targets: Iterable[Target]) -> None:
        """Forget every target but these, which are only looked at where there is something to forget."""
        if self._current:
            kept = set(targets)
            self._current = {target: message for target, message in self._current.items() if target in kept}
