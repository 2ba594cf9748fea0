"""Where the time went: the functions of each profile that took most, alone and with all they called."""

from __future__ import annotations

import pstats
from pathlib import Path
from typing import Any

from tests.architecture.tree import ROOT

SHOWN = 30
_STARTING = "<module>"


def show_hotspots(folder: Path) -> None:
    """Print every profile in `folder`, by the functions' own time and, of our own code, by whole time."""
    for file in sorted(folder.glob("*.prof")):
        found: dict[Any, Any] = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
        rows = [(own_s, whole_s, calls, _place(key)) for key, (_, calls, own_s, whole_s, _) in found.items()]
        total_s = sum(row[0] for row in rows)
        print(f"\n=== {file.stem}: {total_s:.1f} s of processor time\n\n   own s      %     calls  function")
        for own_s, _, calls, place in sorted(rows, reverse=True)[:SHOWN]:
            print(f"{own_s:8.2f} {100 * own_s / total_s:6.1f} {calls:9d}  {place}")
        print("\n whole s      %     calls  function of ours")
        ours = [row for row in rows if row[3].startswith(("cloudless/", "etcd/", "tests/")) and _STARTING not in row[3]]
        for _, whole_s, calls, place in sorted(ours, key=lambda row: -row[1])[:SHOWN]:
            print(f"{whole_s:8.2f} {100 * whole_s / total_s:6.1f} {calls:9d}  {place}")


def _place(key: tuple[str, int, str]) -> str:
    file, line, name = key
    short = file.removeprefix(f"{ROOT}/").split("site-packages/")[-1]
    return f"{short}:{line} {name}" if line else name
