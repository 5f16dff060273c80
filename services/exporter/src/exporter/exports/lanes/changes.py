"""
The steps from one number of lanes to another, as data. Pure.

The lanes of an export come and go together, in one write. They may go when all of them have delivered everything up to
one sequence and nothing behind it. So they are given an end first, the furthest that one of them has reached. Replicas
may take the steps in any order and at once, also towards different numbers: a write holds only if nothing has changed
since its lanes were read.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from exporter.exports.progress import ExportProgress
from exporter.pipeline.lane import Lane, Shards, lanes_of

Lanes = Mapping[Lane, ExportProgress]
"""The progress of the lanes of an export: all of one number of shards, or none."""


def next_step(lanes: Lanes, shards: Shards) -> Lanes:
    """
    The next write on the way to so many lanes.

    Returns:
        The progress of some of the lanes, which are written one by one; or that of the lanes which take the place of
        all, which are written together; or nothing, while runs have to end first, and when all is done.
    """
    if len(lanes) == shards:
        return {lane: replace(one, until=None) for lane, one in lanes.items() if one.until is not None}
    ends = {lane: position(one) if one.until is None else max(one.until, position(one)) for lane, one in lanes.items()}
    # One that has no end goes on, so the furthest is known when all have one.
    endless = {lane: replace(one, until=ends[lane]) for lane, one in lanes.items() if one.until is None}
    if endless:
        return endless
    end = max(ends.values())
    short = {lane: replace(one, until=end) for lane, one in lanes.items() if one.until != end}
    if short or any(one.passed < end or one.window or one.claim for one in lanes.values()):
        return short
    return dict.fromkeys(lanes_of(shards), _successor(lanes))


def position(progress: ExportProgress) -> int:
    """The sequence up to which a lane has delivered, or is sure to: a window that is planned may be stored in part."""
    return max(progress.passed, progress.window.last_sequence if progress.window else 0)


def are_settled(lanes: Lanes, shards: Shards) -> bool:
    """Return whether there are so many lanes, and all go on."""
    return len(lanes) == shards and all(progress.until is None for progress in lanes.values())


def _successor(lanes: Lanes) -> ExportProgress:
    """The first progress of lanes that take the place of others, which have all come equally far."""
    found = list(lanes.values())
    return replace(
        found[0],
        until=None,
        slot_at=max(one.slot_at for one in found),
        named_at=max(one.named_at for one in found),
        failing=next((one.failing for one in found if one.failing), None),
    )
