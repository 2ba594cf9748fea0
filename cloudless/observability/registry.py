"""The metrics of one process, on a registry of its own.

::

    as it happens   observer, counter ──────────────────► prometheus_client ─┐
    at a scrape     sample() ─► {name: value, or {label value: value}} ──────┴─► /metrics

Nothing is declared here: see `metrics`. A sample that does not name a metric declared without labels fails the scrape,
so that no name is left that nobody sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from cloudless.observability.declared import Declared, Kind

Value = float | Mapping[str, float] | Mapping[tuple[str, ...], float]
"""A number; or one for each value of the label, or for each tuple of values of several."""
Sample = Callable[[], Mapping[str, Value]]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter, which no query of ours asks for


def unknown(declared: Sequence[Declared]) -> dict[str, Value]:
    """Return the sample of a process that cannot tell anything yet."""
    return {one.name: {} if one.labels else one.unknown for one in declared if not one.recorded}


class ProcessMetrics:
    """All metrics of one process: `declared` under `prefix`, and those of Python and the process itself."""

    def __init__(self, prefix: str, declared: Sequence[Declared], sample: Sample) -> None:
        """`sample` is called at every scrape, by whatever thread renders."""
        self.registry = CollectorRegistry()
        for build in (ProcessCollector, PlatformCollector, GCCollector):
            build(registry=self.registry)
        self._histograms: dict[str, Histogram] = {}
        self._counters: dict[str, Counter] = {}
        for one in declared:
            if one.recorded:
                self._prepare(prefix, one)
        self.registry.register(_Sampled(prefix, [one for one in declared if not one.recorded], sample))

    def observer(self, name: str, *labels: str) -> Callable[[float], None]:
        """Return what puts a value into a histogram; kept by who does that often, it saves looking it up."""
        histogram = self._histograms[name]
        return (histogram.labels(*labels) if labels else histogram).observe

    def counter(self, name: str, *labels: str) -> Callable[[float], None]:
        """Return what adds to a counter."""
        counter = self._counters[name]
        return (counter.labels(*labels) if labels else counter).inc

    def render(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def _prepare(self, prefix: str, one: Declared) -> None:
        """Make what is recorded, with a sample for every value of its label."""
        made: Histogram | Counter
        if one.kind is Kind.HISTOGRAM:
            made = self._histograms[one.name] = Histogram(
                prefix + one.name, one.meaning, one.labels, buckets=one.buckets, registry=self.registry
            )
        else:
            made = self._counters[one.name] = Counter(
                prefix + one.name, one.meaning, one.labels, registry=self.registry
            )
        for value in one.values:
            made.labels(value)


class _Sampled(Collector):
    """Values taken from `sample` at each scrape."""

    def __init__(self, prefix: str, declared: Sequence[Declared], sample: Sample) -> None:
        self._prefix, self._declared, self._sample = prefix, declared, sample

    def collect(self) -> Iterator[Family]:
        values = self._sample()
        for one in self._declared:
            build = CounterMetricFamily if one.kind is Kind.COUNTER else GaugeMetricFamily
            family = build(self._prefix + one.name, one.meaning, labels=one.labels)
            for labels, value in _samples(one, values[one.name]):
                family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterator[Family]:
        return iter(())


def _samples(one: Declared, value: Value) -> Iterator[tuple[Sequence[str], float]]:
    """Yield label values and numbers: all values that are listed, each once."""
    if not isinstance(value, Mapping):
        yield (), float(value)
        return
    given = {(key,) if isinstance(key, str) else key: number for key, number in value.items()}
    for listed in one.values:
        yield (listed,), float(given.pop((listed,), 0.0))
    if one.values and given:
        raise ValueError(f"{one.name} has no declared value {sorted(given)}")
    yield from ((key, float(number)) for key, number in given.items())
