"""What a soak found so far: rounds, growth, and one word at the end. Written anew after every round."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cloudless.testing.load import Counts
from cloudless.testing.soak.growth import Sample, Trend, find_trends


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: what was done, how much load there was, how long healing took (None: it did not), what was wrong."""

    number: int
    injected: tuple[str, ...]
    load: Counts
    load_seed: int
    healed_s: float | None
    findings: tuple[str, ...]

    def __str__(self) -> str:
        healed = "NOT HEALED" if self.healed_s is None else f"healed in {self.healed_s:.1f} s"
        found = f", {len(self.findings)} FOUND" if self.findings else ""
        return f"{self.number:>4}  {'; '.join(self.injected)}  ({healed}; {self.load}{found})"


@dataclass
class SoakReport:
    """`stopped`: why it ended; "" while it runs."""

    seed: int
    minutes: float
    rounds: list[Round] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stopped: str = ""

    def trends(self) -> list[Trend]:
        return find_trends(self.samples)

    def findings(self) -> list[str]:
        """Return everything that is wrong."""
        found = [f"round {r.number} ({'; '.join(r.injected)}): {text}" for r in self.rounds for text in r.findings]
        growth = [f"growth: {trend}" for trend in self.trends() if trend.grows]
        nothing = [] if self.rounds else ["proves nothing: no round was finished"]
        return [*self.problems, *found, *growth, *nothing]

    def to_plain(self) -> dict[str, Any]:
        return {
            "passed": not self.findings(),
            "seed": self.seed,
            "minutes": self.minutes,
            "stopped": self.stopped,
            "findings": self.findings(),
            "rounds": [asdict(r) for r in self.rounds],
            "trends": [asdict(t) | {"grows": t.grows} for t in self.trends()],
            "samples": [asdict(s) for s in self.samples],
        }

    def write(self, path: Path | None) -> None:
        if path is not None:
            path.write_text(json.dumps(self.to_plain(), indent=1) + "\n", encoding="utf-8")

    def text(self) -> str:
        """Return the report for a person."""
        totals: Counter[str] = Counter()
        for round_ in self.rounds:
            totals.update(asdict(round_.load))
        healed = [r.healed_s for r in self.rounds if r.healed_s is not None]
        trends = self.trends()
        lines = [
            f"\n{len(self.rounds)} rounds in {self.minutes:.1f} minutes, seed {self.seed}; {self.stopped or 'running'}",
            f"load: {Counts(**totals)}",
            f"healing: at most {max(healed, default=0.0):.1f} s",
            f"growth: {len(trends)} figures of {len({t.life for t in trends})} lives judged",
        ]
        lines += [f"  {trend}" for trend in trends if trend.first != trend.last]
        lines += [f"FOUND {text}" for text in self.findings()]
        return "\n".join([*lines, "failed" if self.findings() else "passed"])
