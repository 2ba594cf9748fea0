"""What a benchmark says: figures, each a median with its range over repeated short runs, some beside a bar.

A bar is a ratio (or an absolute limit) from the list of goals. A ratio is taken within one round, between two
measurements that lie seconds apart, so that whatever else the machine does weighs on both; the figure is the median
of these ratios. Load that comes and goes within seconds still falsifies it: the range shows that. Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cloudless.cli.dev.report import percentile

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure's median has to reach, or must not exceed."""

    relation: Literal["at_least", "at_most"]
    value: float

    def met_by(self, median: float) -> bool:
        return median >= self.value if self.relation == "at_least" else median <= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `name` is stable (a word for programs), `text` says what was measured; one value per round."""

    name: str
    text: str
    unit: str
    values: tuple[float, ...]
    bar: Bar | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None without a bar."""
        return self.bar.met_by(self.median) if self.bar else None

    def to_plain(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "text": self.text,
            "unit": self.unit,
            "median": _rounded(self.median),
            "min": _rounded(min(self.values)),
            "max": _rounded(max(self.values)),
            "n": len(self.values),
            "bar": {"relation": self.bar.relation, "value": self.bar.value} if self.bar else None,
            "met": self.met,
        }


def at_least(value: float) -> Bar:
    return Bar("at_least", value)


def at_most(value: float) -> Bar:
    return Bar("at_most", value)


def ratio(name: str, text: str, over: Sequence[float], under: Sequence[float], bar: Bar | None = None) -> Figure:
    """Return the figure of `over / under`, round by round."""
    return Figure(name, text, "ratio", tuple(a / b for a, b in zip(over, under, strict=True)), bar)


def spread(name: str, text: str, unit: str, values: Sequence[float]) -> list[Figure]:
    """Return p50 and p99 of one distribution, as two figures of one value each; `n` is not its size."""
    return [
        Figure(f"{name}_p50", f"{text}, p50", unit, (percentile(values, 0.5),)),
        Figure(f"{name}_p99", f"{text}, p99", unit, (percentile(values, 0.99),)),
    ]


def _rounded(value: float) -> float:
    """Return `value` with four significant digits: more is noise, and makes two runs differ in every line."""
    return float(f"{value:.4g}")
