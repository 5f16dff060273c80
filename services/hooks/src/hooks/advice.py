"""
What an operator should mend although records go out, by target. Told on `alerts` once, and shown until it is mended.
"""

from collections.abc import Callable, Collection

from hooks.triggers import Target


class Advice:
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

    def keep(self, targets: Collection[Target]) -> None:
        """Forget every target but these."""
        for target in [target for target in self._given if target not in targets]:
            del self._given[target]
