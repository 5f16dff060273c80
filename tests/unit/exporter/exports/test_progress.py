"""The selection of events, the claim of an export, and the names of its files."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from exporter.exports.progress import (
    Claim,
    ExportProgress,
    PlannedFile,
    WindowPlan,
    lease_until,
    may_claim,
    name_at,
)
from exporter.pipeline.content import Content
from exporter.pipeline.events import ExportedEvent, Value
from exporter.pipeline.selection import EventSelection

NOW = datetime(2026, 11, 22, 12, 0, 7, 250_000, tzinfo=UTC)
ADVERTISER = "5f059c53d346519b154f20d4"


def event(**attributes: Value) -> ExportedEvent:
    return ExportedEvent(id="e1", user_id="u1", occurred_at=0, attributes=attributes)


def progress_held_by(owner: str, until: datetime) -> ExportProgress:
    claim = Claim(run_id="r", owner=owner, trigger="schedule", started_at=NOW, until=until)
    return ExportProgress(cursor=0, slot_at=NOW, claim=claim)


def test_every_event_matches_without_lists() -> None:
    assert EventSelection(data="clicks").matches(event())


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"partner_id": 4}, True),
        ({"partner_id": "4"}, True),
        ({"partner_id": 5}, False),
        ({"partner_id": True}, False),
        ({"partner_id": "four"}, False),
        ({"partner_id": "4" * 5000}, False),
        ({}, False),
    ],
)
def test_affiliate_is_matched_by_its_number(attributes: dict[str, Value], wanted: bool) -> None:
    selection = EventSelection(data="clicks", affiliates=(1, 4))

    assert wanted is selection.matches(event(**attributes))


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"supplier_id": ADVERTISER}, True),
        ({"supplier_id": ADVERTISER.upper()}, True),
        ({"advertiser_id": ADVERTISER}, True),
        ({"supplier_id": None, "advertiser_id": ADVERTISER}, True),
        ({"supplier_id": "a" * 24, "advertiser_id": ADVERTISER}, False),
        ({"supplier_id": 7}, False),
        ({}, False),
    ],
)
def test_advertiser_is_matched_by_its_digits(attributes: dict[str, Value], wanted: bool) -> None:
    selection = EventSelection(data="conversions", advertisers=(ADVERTISER,))

    assert wanted is selection.matches(event(**attributes))


def test_both_lists_must_match_when_both_are_set() -> None:
    selection = EventSelection(data="clicks", affiliates=(4,), advertisers=(ADVERTISER,))

    assert selection.matches(event(partner_id=4, supplier_id=ADVERTISER))
    assert not selection.matches(event(partner_id=4))
    assert not selection.matches(event(supplier_id=ADVERTISER))


def test_unclaimed_export_may_be_claimed() -> None:
    assert may_claim(ExportProgress(cursor=0, slot_at=NOW), "me", NOW)


def test_export_claimed_by_another_process_may_not_be_claimed() -> None:
    held = progress_held_by("other", lease_until(NOW))

    assert not may_claim(held, "me", NOW)
    assert may_claim(held, "other", NOW)


def test_export_may_be_claimed_when_its_lease_has_expired() -> None:
    held = progress_held_by("other", lease_until(NOW))

    assert may_claim(held, "me", lease_until(NOW))


def test_file_is_named_after_this_second() -> None:
    assert NOW.replace(microsecond=0) == name_at(NOW, NOW - timedelta(days=1))


def test_file_is_named_after_the_next_second_when_this_one_is_used() -> None:
    used = NOW.replace(microsecond=0)

    assert used + timedelta(seconds=1) == name_at(NOW, used)


def test_progress_survives_being_stored() -> None:
    plan = WindowPlan(
        named_at=NOW,
        revision=3,
        location="s3://b/raw",
        content=Content(selection=EventSelection(data="clicks", affiliates=(4,))),
        first_sequence=5,
        last_sequence=9,
        rows_in=2,
        rows_dropped=0,
        files=(PlannedFile(key="raw/x.csv.gz", part="clicks", rows=1, size_bytes=100, sha256="ab"),),
    )
    progress = ExportProgress(cursor=4, slot_at=NOW, named_at=NOW, window=plan)

    assert progress == msgspec.json.decode(msgspec.json.encode(progress), type=ExportProgress)
