"""What a metric is, as a value: declared once, so that tables, tests and the registry are made from the same words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One metric. `name` is without the process's prefix, and without the `_total` of a counter.

    `values` are all values of its one label; each has a sample at every scrape, from the first on. Where they cannot be
    listed, `labels` has names only and `bound` says what keeps them few. `unknown` is what it is before anybody can
    tell. `recorded`: counted as it happens; everything else is read from its owner when somebody scrapes.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    bound: str = ""
    buckets: tuple[float, ...] = ()
    unknown: float = 0.0
    recorded: bool = False

    @property
    def sample_name(self) -> str:
        """Return what a query calls it, still without the prefix; a histogram by its common beginning."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


def gauge(
    name: str, meaning: str, *, label: str = "", values: tuple[str, ...] = (), bound: str = "", unknown: float = 0.0
) -> Declared:
    """Declare a gauge; `label` may be several names, divided by blanks, if its values are not listed."""
    labels = tuple(label.split())
    return Declared(
        name=name, kind=Kind.GAUGE, meaning=meaning, labels=labels, values=values, bound=bound, unknown=unknown
    )


def counter(
    name: str, meaning: str, *, label: str = "", values: tuple[str, ...] = (), bound: str = "", recorded: bool = False
) -> Declared:
    """Declare a counter."""
    labels = tuple(label.split())
    return Declared(
        name=name, kind=Kind.COUNTER, meaning=meaning, labels=labels, values=values, bound=bound, recorded=recorded
    )


def histogram(
    name: str, meaning: str, buckets: tuple[float, ...], *, label: str = "", values: tuple[str, ...] = ()
) -> Declared:
    """Declare a histogram, always recorded as it happens; `buckets` are upper bounds without the last, +Inf."""
    return Declared(
        name=name,
        kind=Kind.HISTOGRAM,
        meaning=meaning,
        labels=tuple(label.split()),
        values=values,
        buckets=buckets,
        recorded=True,
    )
