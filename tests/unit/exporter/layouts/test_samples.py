"""Test events are of each chosen type, and the export's own layout makes one row of each."""

import pytest

from exporter.layouts.affise import AffiseLayout
from exporter.layouts.currents import CurrentsLayout
from exporter.layouts.currents.schemas import schemas
from exporter.layouts.samples import sample_events
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.sample_files import MOST_CALLS, PERIOD_S, CallLimit, sample_key
from exporter.pipeline.selection import Data, EventSelection
from shared.contracts.messages import encode
from shared.errors import BusyError, InvalidError
from support.clock import Clock

ORIGIN = Origin(app_key="shop", export_id="e")


@pytest.mark.parametrize("types", [(), ("millrace.click.BUY_1", "users.messages.pushnotification.Open")])
def test_each_chosen_type_has_one_event(types: tuple[str, ...]) -> None:
    selection = EventSelection(data="events", types=types)
    reading = CurrentsLayout(ORIGIN, Content(selection=selection, layout="currents")).read(
        encode(sample_events(selection, "shop", 1_795_314_667_123))
    )

    names = {".".join(part.split(".")[:2]) if part.startswith("millrace.") else part for part in reading.parts}
    assert (set(types) or set(schemas())) == (set(reading.parts) if types else names)
    assert {1} == {len(rows) for rows in reading.parts.values()}
    assert 0 == reading.dropped


@pytest.mark.parametrize("data", ["clicks", "conversions"])
def test_event_of_clicks_and_conversions_passes_the_lists(data: Data) -> None:
    selection = EventSelection(data=data, affiliates=(7, 8), advertisers=("b" * 24,))
    reading = AffiseLayout(ORIGIN, Content(selection=selection)).read(encode(sample_events(selection, "shop", 1000)))

    assert [1] == [len(rows) for rows in reading.parts.values()]


@pytest.mark.parametrize("chosen", ["users.behaviors.Nothing", "millrace.event.X", "millrace.click.a.b"])
def test_type_that_no_event_has_is_named(chosen: str) -> None:
    with pytest.raises(InvalidError) as caught:
        sample_events(EventSelection(data="events", types=("millrace.click", chosen)), "shop", 1)
    assert "types[1]" == caught.value.field


def test_key_has_the_mark_in_its_folder_and_in_its_name() -> None:
    assert "d/test=true/2026/11/22/test-U-02:45.csv.gz" == sample_key("d", "2026/11/22/02:45.csv.gz", "U")
    assert "test=true/test-U-a" == sample_key("", "a", "U")


def test_calls_of_an_app_are_limited_and_those_of_another_are_not() -> None:
    clock = Clock()
    limit = CallLimit(clock)
    for _ in range(MOST_CALLS):
        limit.take("shop")

    with pytest.raises(BusyError) as caught:
        limit.take("shop")
    limit.take("rival")

    assert PERIOD_S == caught.value.retry_after_s
    clock.now = clock.now.fromtimestamp(clock.now.timestamp() + PERIOD_S, clock.now.tzinfo)
    limit.take("shop")
