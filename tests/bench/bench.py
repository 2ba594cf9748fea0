"""What every section is given: how long and how often to measure, what of it, and where to say what goes on."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.load import Load, Step, p50s, p99s, rates


@dataclass(frozen=True, slots=True)
class Bench:
    """Settings of a run.

    `rounds` of `slice_s` seconds a measurement; `failovers` of each kind; `scale` multiplies sizes and counts that
    cost time (1 for a full run). `only`: measure the steps whose names contain one of these, no ratios.
    `nodes`: so many simulated agents instead of the section's own numbers; 0: those.
    `profile_dir`: where profiles are written, None without profiling.
    """

    rounds: int = 5
    slice_s: float = 1.0
    failovers: int = 10
    scale: float = 1.0
    only: tuple[str, ...] = ()
    nodes: int = 0
    profile_dir: Path | None = None
    started_s: float = field(default_factory=time.monotonic)

    def profile_file(self, name: str) -> Path | None:
        return self.profile_dir / f"{name}.prof" if self.profile_dir else None

    def size(self, full: int) -> int:
        """Return `full` scaled, at least 1."""
        return max(1, round(full * self.scale))

    def wants(self, name: str) -> bool:
        """Return whether this part was asked for."""
        return not self.only or any(word in name for word in self.only)

    def chosen(self, steps: dict[str, Step]) -> dict[str, Step]:
        """Return the steps asked for. Exits if there are none."""
        found = {name: step for name, step in steps.items() if self.wants(name)}
        return found or sys.exit(f"none of {', '.join(steps)} is meant by {', '.join(self.only)}")

    def partial(self, loads: dict[str, list[Load]]) -> list[Figure]:
        """Return plain figures when only some steps were asked for, else nothing."""
        if not self.only:
            return []
        return [
            figure
            for name, found in loads.items()
            for figure in (
                Figure(name, name, "1/s", rates(found)),
                Figure(f"{name} p50", f"{name}, p50", "ms", p50s(found)),
                Figure(f"{name} p99", f"{name}, p99", "ms", p99s(found)),
            )
        ]

    def say(self, text: str) -> None:
        """Tell what was just found: on a terminal in a line that the next one replaces."""
        line = f"  {time.monotonic() - self.started_s:6.1f} s  {text}"
        terminal = sys.stderr.isatty()
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)


QUICK: dict[str, Any] = {"rounds": 2, "slice_s": 0.4, "failovers": 2, "scale": 0.2}
