"""
The catalogue of metrics, and the counters of one process. No other file spells a metric's name: a typo is a type error.

Labels are few and bounded: a route's pattern and never its path, a stream's name and never a user's. An app's key is a
label only in what is read at every scrape (`READINGS`), so that a deleted hook is gone from there.
"""

import asyncio
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, cast

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

# The library adds a series beside each counter that says when it was made: twice the lines, for nobody here. It has
# not annotated the function that stops it.
disable_created_metrics()  # type: ignore[no-untyped-call]

M = TypeVar("M", Counter, Gauge, Histogram)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of `Metrics.render`."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

CounterName = Literal[
    "millrace_http_requests_total",
    "millrace_http_closed_total",
    "millrace_bus_published_total",
    "millrace_bus_consumed_total",
    "millrace_config_refused_total",
    "millrace_unreadable_entries_total",
    "millrace_storage_objects_total",
    "millrace_storage_bytes_total",
    "millrace_storage_failovers_total",
    "millrace_hooks_events_total",
    "millrace_hooks_records_total",
    "millrace_hooks_order_inversions_total",
    "millrace_hooks_dead_letters_total",
    "millrace_hooks_replayed_total",
    "millrace_ftp_files_total",
    "millrace_ftp_rows_total",
    "millrace_ftp_refused_total",
    "millrace_ftp_pulled_files_total",
    "millrace_ftp_pulled_bytes_total",
    "millrace_export_runs_total",
    "millrace_export_rows_total",
    "millrace_export_bytes_total",
    "millrace_stream_dropped_total",
    "millrace_read_chunks_deleted_total",
    "millrace_bugs_total",
]
GaugeName = Literal[
    "millrace_ready",
    "millrace_bus_lag_messages",
    "millrace_config_revision",
    "millrace_hooks_lag_seconds",
    "millrace_hooks_waiting_records",
    "millrace_hooks_partitions_owned",
    "millrace_ftp_sessions",
    "millrace_export_lag_messages",
    "millrace_export_lag_seconds",
    "millrace_hooks_detached_targets",
    "millrace_stream_messages",
    "millrace_stream_bytes",
    "millrace_stream_limit_bytes",
    "millrace_loop_lag_seconds",
    "millrace_http_connections",
]
HistogramName = Literal["millrace_http_request_seconds"]
ReadingName = Literal[
    "millrace_hook_matched_total",
    "millrace_hook_sent_total",
    "millrace_hook_failed_total",
    "millrace_hook_dead_lettered_total",
    "millrace_hook_skipped_inactive_total",
    "millrace_hook_lag_events",
    "millrace_hook_lag_seconds",
    "millrace_exports",
    "millrace_export_used_percent",
]


class Series(Struct, frozen=True):
    """Meaning and labels of a metric."""

    meaning: str
    labels: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    """The labels that name a tenant or what is a tenant's: only an operator's scrape shows them."""


COUNTERS: dict[CounterName, Series] = {
    "millrace_http_requests_total": Series("Requests answered, by the route's pattern", ("method", "route", "status")),
    "millrace_http_closed_total": Series(
        "Connections that the listener closed: time (no request, or nobody reads), headers (too long), room (for "
        "another), refused",
        ("reason",),
    ),
    "millrace_bus_published_total": Series("Messages that JetStream has acknowledged", ("stream",)),
    "millrace_bus_consumed_total": Series("Messages settled by a durable consumer", ("consumer", "outcome")),
    "millrace_config_refused_total": Series("New configuration refused, the last good one staying live", ("kind",)),
    "millrace_unreadable_entries_total": Series(
        "Entries read from a bucket of NATS that are none of its kind", ("stream",)
    ),
    "millrace_storage_objects_total": Series("Objects asked to be stored", ("provider", "kind", "outcome")),
    "millrace_storage_bytes_total": Series("Bytes of objects stored", ("provider",)),
    "millrace_storage_failovers_total": Series("Uploads that a provider took in another's place", ("provider",)),
    "millrace_hooks_events_total": Series(
        "Events seen: matched, unmatched, skipped_inactive, behind or lost", ("outcome",)
    ),
    "millrace_hooks_records_total": Series("Records handed to a sink's stream", ("stream", "outcome"), ("stream",)),
    "millrace_hooks_order_inversions_total": Series("Records whose sequence shows that a user's order was lost"),
    "millrace_hooks_dead_letters_total": Series("Records put aside because no attempt can succeed", ("reason",)),
    "millrace_hooks_replayed_total": Series("Dead letters sent again, and what became of them", ("outcome",)),
    "millrace_ftp_files_total": Series("Files that came to an end: completed, failed, duplicate", ("kind", "outcome")),
    "millrace_ftp_rows_total": Series("Rows of files: accepted or rejected", ("kind", "outcome")),
    "millrace_ftp_refused_total": Series(
        "SFTP connections closed before SSH: banned, crowded, strangers, header or closing", ("reason",)
    ),
    "millrace_ftp_pulled_files_total": Series("Files of customers' own servers: pulled or failed", ("outcome",)),
    "millrace_ftp_pulled_bytes_total": Series("Bytes of files that were pulled from customers' own servers"),
    "millrace_export_runs_total": Series("Runs of exports that came to an end", ("outcome",)),
    "millrace_export_rows_total": Series("Rows of exports: exported, filtered or dropped", ("outcome",)),
    "millrace_export_bytes_total": Series("Bytes of exported objects, as they lie in the destination"),
    "millrace_stream_dropped_total": Series(
        "Messages that a full stream has dropped, the oldest first; each replica counts all", ("stream",)
    ),
    "millrace_read_chunks_deleted_total": Series(
        "Messages with rows of files that their reader had acknowledged, deleted to make room", ("stream",)
    ),
    "millrace_bugs_total": Series("Exceptions that no kind of error covers", ("where",)),
}
GAUGES: dict[GaugeName, Series] = {
    "millrace_ready": Series("1 while every ping of the service passes"),
    "millrace_bus_lag_messages": Series("Messages that wait for a durable consumer", ("consumer",)),
    "millrace_config_revision": Series("Newest revision of the configuration that is live", ("kind",)),
    "millrace_hooks_lag_seconds": Series("Age of the oldest event that a hook waits with: the slowest hook's lag"),
    "millrace_hooks_waiting_records": Series("Records that hooks have not finished, taken from the stream"),
    "millrace_hooks_partitions_owned": Series("Partitions that this replica of hooks reads"),
    "millrace_ftp_sessions": Series("Sessions of SFTP users that are open"),
    "millrace_export_lag_messages": Series("Messages of the slowest export that wait to be exported"),
    "millrace_export_lag_seconds": Series("Age of the oldest event that waits to be exported: the slowest export's"),
    "millrace_stream_messages": Series("Messages of a stream, or of the stream under a bucket", ("stream",)),
    "millrace_stream_bytes": Series("Bytes of a stream before compression, which its limit counts", ("stream",)),
    "millrace_stream_limit_bytes": Series("Bytes at which a stream refuses messages, or drops the oldest", ("stream",)),
    "millrace_hooks_detached_targets": Series("Targets that were blocked and catch up apart from the others"),
    "millrace_loop_lag_seconds": Series("Longest delay of the event loop in the last 30 to 60 s"),
    "millrace_http_connections": Series("Connections of HTTP that are open"),
}
_HOOK = ("app_key", "hook_id")
READINGS: dict[ReadingName, Series] = {
    "millrace_hook_matched_total": Series("Events that fired the hook", _HOOK, _HOOK),
    "millrace_hook_sent_total": Series("Events of the hook that its target has confirmed", _HOOK, _HOOK),
    "millrace_hook_failed_total": Series("Attempts at a record of the hook that failed", _HOOK, _HOOK),
    "millrace_hook_dead_lettered_total": Series("Events of the hook that became dead letters", _HOOK, _HOOK),
    "millrace_hook_skipped_inactive_total": Series(
        "Events of the hook that its inactive connector passed over", _HOOK, _HOOK
    ),
    "millrace_hook_lag_events": Series("Events of the hook that wait, in this replica", _HOOK, _HOOK),
    "millrace_hook_lag_seconds": Series(
        "Age of the oldest event that the hook waits with, in this replica", _HOOK, _HOOK
    ),
    "millrace_exports": Series("Exports by state; each replica counts all", ("state",)),
    "millrace_export_used_percent": Series("Largest share that a failing export has used of its 48 hours"),
}
HISTOGRAMS: dict[HistogramName, Series] = {
    "millrace_http_request_seconds": Series("Time from a request's headers to its answer", ("route",)),
}


TENANT_LABELS: dict[str, tuple[str, ...]] = {
    name.removesuffix("_total"): series.tenants
    for name, series in (COUNTERS | GAUGES | READINGS | HISTOGRAMS).items()
    if series.tenants
}
"""Labels that name a tenant, by the name of a family: the library takes `_total` from it."""

Reading = tuple[ReadingName, tuple[str, ...], float]
"""A name, the values of its labels in the order of the catalogue, and the number."""


class _Page:
    """One scrape: `generate_latest` asks for no more of a registry than `collect`."""

    def __init__(self, registry: CollectorRegistry, readings: Iterable[Reading], *, tenants: bool) -> None:
        self._registry = registry
        self._readings = readings
        self._tenants = tenants

    def collect(self) -> Iterator[Metric]:
        yield from (self._shown(family) for family in self._registry.collect())
        families = {
            name: (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(
                name, series.meaning, labels=series.labels
            )
            for name, series in READINGS.items()
        }
        for name, labels, value in self._readings:
            families[name].add_metric(labels, value)
        yield from map(self._shown, families.values())

    def _shown(self, family: Metric) -> Metric:
        hidden = TENANT_LABELS.get(family.name, ())
        if self._tenants or not hidden:
            return family
        # An age is not added to another.
        join = max if family.name.endswith("_seconds") else operator.add
        joined: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in family.samples:
            labels = tuple(item for item in sample.labels.items() if item[0] not in hidden)
            joined[labels] = join(joined[labels], sample.value) if labels in joined else sample.value
        shown = Metric(family.name, family.documentation, family.type)
        for labels, value in joined.items():
            shown.add_sample(family.samples[0].name, dict(labels), value)
        return shown


class Metrics:
    """
    The metrics of one process, in a registry of its own, so that two services in one test do not share numbers.

    A label that the catalogue does not give the metric, or one left out, is a `ValueError`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {n: Counter(n, s.meaning, s.labels, registry=self._registry) for n, s in COUNTERS.items()}
        self._gauges = {n: Gauge(n, s.meaning, s.labels, registry=self._registry) for n, s in GAUGES.items()}
        self._histograms = {
            n: Histogram(n, s.meaning, s.labels, buckets=SECONDS, registry=self._registry)
            for n, s in HISTOGRAMS.items()
        }
        # Looking a labelled series up in the library costs several times as much as adding to it.
        self._labelled: dict[tuple[object, ...], Any] = {}
        self._read: list[Callable[[], Iterable[Reading]]] = []
        ProcessCollector(registry=self._registry)

    def count(self, name: CounterName, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._series(name, self._counters[name], labels).inc(value)

    def gauge(self, name: GaugeName, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._series(name, self._gauges[name], labels).set(value)

    def observe(self, name: HistogramName, seconds: float, **labels: str) -> None:
        """Add one duration to a histogram."""
        self._series(name, self._histograms[name], labels).observe(seconds)

    def read(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Call `read` at every scrape, in the event loop."""
        self._read.append(read)

    def _series(self, name: str, metric: M, labels: Mapping[str, str]) -> M:
        if not labels:
            return metric
        key = (name, *labels.items())
        series = self._labelled.get(key)
        if series is None:
            series = self._labelled[key] = metric.labels(**labels)
        return cast(M, series)

    def render(self, *, tenants: bool = True) -> bytes:
        """
        All metrics in Prometheus' text format 0.0.4.

        Args:
            tenants: Whether to show the labels that name a tenant. Without them their series are one sum, or the
                largest age.
        """
        return self._format(self._readings(), tenants)

    async def render_aside(self, *, tenants: bool) -> bytes:
        """`render` in a thread: the lines of 10,000 hooks take a second. What is read at a scrape is read first."""
        return await asyncio.to_thread(self._format, self._readings(), tenants)

    def _readings(self) -> list[Reading]:
        return [reading for read in self._read for reading in read()]

    def _format(self, readings: list[Reading], tenants: bool) -> bytes:
        page = _Page(self._registry, readings, tenants=tenants)
        return generate_latest(cast(CollectorRegistry, page))
