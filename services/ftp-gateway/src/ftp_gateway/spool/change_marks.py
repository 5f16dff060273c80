"""
Marks by which replicas that share a spool notice each other's changes without reading the spool again.

Each replica has a mark of its own: an empty file whose modification time it moves on after every step. That is one call
of the file system, which a shared one shows to all at once. While the marks of the others stay the same, no listing is
needed.
"""

import os
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

Marks = frozenset[tuple[str, int]]
"""Marks of the other replicas. Unequal ones mean that another replica has changed the spool in between."""


class ChangeMarks:
    """
    Mark of this replica, and those of the others.

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
        """Tell the other replicas that this one has changed the spool."""
        step = next(self._steps)
        # A full disk may have no room for the mark. The step is done all the same; the others find it a little later.
        with suppress(OSError):
            try:
                os.utime(self._mark, (step, step))
            except FileNotFoundError:
                self._mark.touch(mode=0o600)
                os.utime(self._mark, (step, step))

    def read_others(self) -> Marks:
        """Return the marks that the other replicas have now."""
        found: set[tuple[str, int]] = set()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name != self._mark.name:
                    with suppress(FileNotFoundError):
                        found.add((entry.name, entry.stat(follow_symlinks=False).st_mtime_ns))
        return frozenset(found)

    def sweep(self, before: datetime) -> None:
        """Remove marks that have not moved since. A replica that still runs makes another."""
        for mark in self._directory.iterdir():
            with suppress(FileNotFoundError):
                # ctime is when the mark was moved; mtime is the value it was moved to.
                if datetime.fromtimestamp(mark.stat(follow_symlinks=False).st_ctime, UTC) < before:
                    mark.unlink()
