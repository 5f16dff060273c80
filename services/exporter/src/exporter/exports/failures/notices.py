"""Texts of what is told of a failing export. Pure."""

from datetime import datetime
from typing import Final

from exporter.exports.failures.failure import KEPT_S, DroppedEvents, ExportFailure, Notice

KINDS: Final[dict[Notice, str]] = {
    "failed": "export-failed",
    "half": "export-failing-50",
    "most": "export-failing-90",
    "dropped": "events-dropped",
    "recovered": "export-recovered",
}
"""The kinds of alerts."""

_FAULTS: Final = {
    "customer": f"Events wait for {KEPT_S / 3600:.0f} h; older ones are dropped then.",
    "provider": "This is the provider's failure, so no event is dropped for it.",
    "platform": "This is no fault of the destination, so no event is dropped for it.",
}


def text_of(notice: Notice, failure: ExportFailure, now: datetime, attempt: str) -> str:
    """
    The text of an alert.

    Args:
        attempt: The attempt that failed, or that ended the failure: `run <id>`, or the probe.
    """
    why = f"({failure.last_code or failure.code}): {failure.message}"
    hours = (now - failure.since).total_seconds() / 3600
    if notice == "failed":
        return f"{attempt} failed {why}. {_FAULTS[failure.fault]}"
    if notice == "dropped" and failure.dropped is not None:
        return f"{in_words(failure.dropped)} were dropped, older than {KEPT_S / 3600:.0f} h; last failure {why}"
    if notice == "recovered":
        lost = f"; {in_words(failure.dropped)} were dropped" if failure.dropped else "; no event was dropped"
        return f"{attempt} passed after {max(0.0, hours):.1f} h of failure{lost}"
    percent = "90 %" if notice == "most" else "50 %"
    return f"{percent} of the {KEPT_S / 3600:.0f} h are over, after which older events are dropped; last failure {why}"


def in_words(dropped: DroppedEvents) -> str:
    """Dropped events in words."""
    return f"{dropped.events} events (sequences {dropped.first_sequence} to {dropped.last_sequence})"
