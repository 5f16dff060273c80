"""
What an operator should mend although records go out, by target. Told on `alerts` once, and shown until it is mended.
"""

from collections.abc import Callable, Iterable

from hooks.matching.rule import Target


class Advisories:
    """`tell` is called with what is new."""

    def __init__(self, tell: Callable[[Target, str], None]) -> None:
        self._tell = tell
        self._given: dict[Target, str] = {}

    def give(self, target: Target, message: str | None) -> None:
        """Something should be mended; None says that it is."""
        if message is None:
            self._given.pop(target, None)
        elif self._given.get(target) != message:
            self._given[target] = message
            self._tell(target, message)

    def of(self, target: Target) -> str | None:
        """What should be mended for a target."""
        return self._given.get(target)

    def keep(self, targets: Iterable[Target]) -> None:
        """Forget every target but these, which are only looked at where there is something to forget."""
        if self._given:
            kept = set(targets)
            self._given = {target: message for target, message in self._given.items() if target in kept}
