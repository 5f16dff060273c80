"""The catalogue of metrics, and their exposition by a process."""

from typing import get_args

import pytest

from shared.runtime.telemetry import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    READINGS,
    CounterName,
    GaugeName,
    HistogramName,
    Metrics,
    Reading,
)


def test_every_name_is_in_the_catalogue_once() -> None:
    assert set(get_args(CounterName)) == set(COUNTERS)
    assert set(get_args(GaugeName)) == set(GAUGES)
    assert set(get_args(HistogramName)) == set(HISTOGRAMS)


def test_names_begin_with_the_product_and_end_with_the_unit() -> None:
    names: list[str] = [*COUNTERS, *GAUGES, *HISTOGRAMS]

    assert [] == [name for name in names if not name.startswith("millrace_")]
    assert [] == [name for name in COUNTERS if not name.endswith("_total")]
    assert [] == [name for name in HISTOGRAMS if not name.endswith("_seconds")]


def test_a_counter_adds_up_by_its_labels() -> None:
    metrics = Metrics()

    metrics.count("millrace_bus_published_total", stream="EVENTS")
    metrics.count("millrace_bus_published_total", 2, stream="EVENTS")
    metrics.count("millrace_bus_published_total", stream="PUSH")
    metrics.count("millrace_export_bytes_total", 10)

    text = metrics.render().decode()
    assert 'millrace_bus_published_total{stream="EVENTS"} 3.0' in text
    assert 'millrace_bus_published_total{stream="PUSH"} 1.0' in text
    assert "millrace_export_bytes_total 10.0" in text


def test_a_gauge_shows_its_last_value() -> None:
    metrics = Metrics()

    metrics.gauge("millrace_config_revision", 4, kind="hooks")
    metrics.gauge("millrace_config_revision", 7, kind="hooks")
    metrics.gauge("millrace_ready", 1)

    text = metrics.render().decode()
    assert 'millrace_config_revision{kind="hooks"} 7.0' in text
    assert "millrace_ready 1.0" in text


def test_a_histogram_counts_durations() -> None:
    metrics = Metrics()

    metrics.observe("millrace_http_request_seconds", 0.02, route="/v1/apps/{app_key}/media")

    text = metrics.render().decode()
    route = 'route="/v1/apps/{app_key}/media"'
    assert f'millrace_http_request_seconds_bucket{{le="0.025",{route}}} 1.0' in text
    assert f"millrace_http_request_seconds_count{{{route}}} 1.0" in text


@pytest.mark.parametrize("labels", [{}, {"strem": "EVENTS"}, {"stream": "EVENTS", "app": "shop"}])
def test_a_label_that_the_catalogue_does_not_have_is_an_error(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().count("millrace_bus_published_total", 1, **labels)


def test_two_processes_in_one_test_do_not_share_numbers() -> None:
    one, other = Metrics(), Metrics()

    one.count("millrace_export_bytes_total", 5)

    assert b"millrace_export_bytes_total 0.0" in other.render()


def test_the_process_shows_its_memory_and_cpu() -> None:
    text = Metrics().render()

    assert b"process_resident_memory_bytes" in text
    assert b"process_cpu_seconds_total" in text
    assert b"_created" not in text


def test_a_value_read_at_a_scrape_is_removed_with_its_hook() -> None:
    metrics = Metrics()
    sent = {("shop", "all"): 3.0, ("other", "all"): 1.0}
    metrics.read(lambda: [("millrace_hook_sent_total", hook, value) for hook, value in sent.items()])

    assert b'millrace_hook_sent_total{app_key="shop",hook_id="all"} 3.0' in metrics.render()
    del sent["shop", "all"]
    assert b'app_key="shop"' not in metrics.render()
    assert b'app_key="other"' in metrics.render()


OF_TENANTS = [name for name, series in READINGS.items() if series.tenants]


def of_two_tenants() -> Metrics:
    metrics = Metrics()
    metrics.count("millrace_hooks_records_total", 2, stream="shop-purchases", outcome="sent")
    metrics.count("millrace_hooks_records_total", 3, stream="rival-purchases", outcome="sent")
    metrics.count("millrace_hooks_records_total", 4, stream="rival-purchases", outcome="failed")
    readings: list[Reading] = [
        (name, hook, number)
        for number, hook in enumerate((("shop", "campaign"), ("rival", "campaign"), ("rival", "takeover")), start=1)
        for name in OF_TENANTS
    ]
    metrics.read(lambda: readings)
    return metrics


def test_scrape_without_tenants_has_every_series_and_names_none() -> None:
    text = of_two_tenants().render(tenants=False).decode()

    assert [] == [name for name in ("shop", "rival", "campaign", "takeover") if name in text]
    assert 'millrace_hooks_records_total{outcome="sent"} 5.0' in text
    assert 'millrace_hooks_records_total{outcome="failed"} 4.0' in text
    assert "millrace_hook_sent_total 6.0" in text
    assert "millrace_hook_lag_events 6.0" in text
    # The largest of the ages.
    assert "millrace_hook_lag_seconds 3.0" in text
    assert [] == [name for name in OF_TENANTS if f"# TYPE {name}" not in text]


async def test_scrape_with_tenants_names_them() -> None:
    metrics = of_two_tenants()

    text = await metrics.render_aside(tenants=True)

    assert b'millrace_hook_sent_total{app_key="rival",hook_id="takeover"} 3.0' in text
    assert b'millrace_hooks_records_total{outcome="sent",stream="shop-purchases"} 2.0' in text
    assert len(text.splitlines()) == len(metrics.render().splitlines())


def test_label_that_names_a_tenant_is_marked_so() -> None:
    named = {"app_key", "hook_id", "export_id", "remote_id", "user_id", "bucket"}

    for series in (*COUNTERS.values(), *GAUGES.values(), *READINGS.values(), *HISTOGRAMS.values()):
        assert set(series.labels) & named <= set(series.tenants) <= set(series.labels)
