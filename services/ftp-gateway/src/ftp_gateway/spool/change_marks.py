"""
How replicas that share a spool learn that one of them has changed it, without reading the spool anew.

Each has a mark of its own, an empty file whose time of change it moves on after every step. That is one call of the
file system, which a shared one shows to all at once. Who finds the marks of the others as they were needs no listing;
what it has done itself it knows.
"""

import os
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

Marks = frozenset[tuple[str, int]]
"""The marks of the others. Unequal ones mean that somebody has done something in between."""


class ChangeMarks:
    """
    This replica among the others.

    Args:
        directory: Made if missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._mark = directory / uuid.uuid4().hex
        # Whole seconds, which every file system keeps; no value comes twice.
        self._steps = count(1)

    def mark_changed(self) -> None:
        """This replica has changed the spool."""
        step = next(self._steps)
        # A full disk may have no room for the mark. The step is done all the same; the others find it a little later.
        with suppress(OSError):
            try:
                os.utime(self._mark, (step, step))
            except FileNotFoundError:
                self._mark.touch(mode=0o600)
                os.utime(self._mark, (step, step))

    def read_others(self) -> Marks:
        """What the others have told so far."""
        found: set[tuple[str, int]] = set()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name != self._mark.name:
                    with suppress(FileNotFoundError):
                        found.add((entry.name, entry.stat(follow_symlinks=False).st_mtime_ns))
        return frozenset(found)

    def sweep(self, before: datetime) -> None:
        """Remove the marks of those who have told nothing for long. One who is there after all makes another."""
        for mark in self._directory.iterdir():
            with suppress(FileNotFoundError):
                # The time at which the mark was moved; the other one is what it was moved to.
                if datetime.fromtimestamp(mark.stat(follow_symlinks=False).st_ctime, UTC) < before:
                    mark.unlink()
