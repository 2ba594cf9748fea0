"""The page's plots, as SVG: medians with their ranges, and every goal's figure over its goal.

Drawn with matplotlib, which only this needs (the extra `bench`); the files do not change unless the figures do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Plot:
    """Figures of one section, all of one unit, as horizontal bars. `log` for ranges over several powers of ten."""

    title: str
    names: tuple[str, ...]
    log: bool = False


PLOTS = {
    "transport": Plot("empty calls and messages, per second", ("echo_1", "echo_64", "stream_1", "stream_100")),
    "writes": Plot(
        "writes per second",
        ("echo_64", "raw_1", "apply_1", "cordon_1", "raw_64", "apply_64", "cordon_64", "raw_256", "apply_256",
         "batches", "own"),
    ),
    "reads": Plot("gets per second, 64 in flight", ("echo_64", "stale_64", "bounded_64", "linearizable_64")),
    "watch": Plot(
        "apply lag at 5,000 changes a second, milliseconds",
        ("replica_lag_p50", "replica_lag_p99", "api_lag_p50", "api_lag_p99"), log=True,
    ),
    "failover": Plot(
        "gap in writes, seconds",
        ("raw_gap", "kill_raft_leader_write_gap", "kill_leader_write_gap", "transfer_write_gap"),
    ),
    "memory": Plot(
        "resident memory, MB",
        tuple(f"{kind}_{phase}_memory" for kind in ("coordinator", "agent", "etcd") for phase in ("idle", "busy")),
    ),
    "scheduler": Plot(
        "placements per second",
        tuple(f"{what}_{shape}_{nodes}" for nodes in (1000, 5000, 10000) for what in ("place", "plan")
              for shape in ("one", "thousand")), log=True,
    ),
}  # fmt: skip
_COLOUR, _MET, _NOT_MET = "#4477aa", "#228833", "#cc3311"


def draw(result: dict[str, Any], folder: Path) -> None:
    """Write the SVG files of `result` to `folder`."""
    import matplotlib as mpl

    mpl.use("svg")
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "cloudless", "svg.fonttype": "none", "font.size": 9}):
        for name, plot in PLOTS.items():
            measured = result["sections"].get(name, {}).get("figures", [])
            if measured:
                figures = {figure["name"]: figure for figure in measured}
                chosen = [figures[n] for n in plot.names if n in figures]
                _draw_bars(chosen, plot, folder / f"{name}.svg")
        judged = [f for section in result["sections"].values() for f in section["figures"] if f["bar"]]
        _draw_goals([f for f in judged if f["bar"]["value"] > 0], folder / "goals.svg")


def _draw_bars(figures: list[dict[str, Any]], plot: Plot, file: Path) -> None:
    below = [figure["median"] - figure["min"] for figure in figures]
    above = [figure["max"] - figure["median"] for figure in figures]
    canvas, axes = _axes(len(figures), plot.title)
    rows = range(len(figures))
    axes.barh(rows, [figure["median"] for figure in figures], xerr=[below, above], color=_COLOUR, capsize=2)
    if plot.log:
        axes.set_xscale("log")
    _finish(canvas, axes, figures, file)


def _draw_goals(figures: list[dict[str, Any]], file: Path) -> None:
    """Draw how many times better than its goal each figure is: right of 1 is met."""
    canvas, axes = _axes(len(figures), "times better than the goal (1: just met)")
    colours = [_MET if figure["met"] else _NOT_MET for figure in figures]
    axes.barh(range(len(figures)), [_times_better(figure) for figure in figures], color=colours)
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=1)
    _finish(canvas, axes, figures, file)


def _times_better(figure: dict[str, Any]) -> float:
    goal, median = figure["bar"]["value"], max(figure["median"], 1e-6)
    better: float = median / goal if figure["bar"]["relation"] == "at_least" else goal / median
    return better


def _axes(rows: int, title: str) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(figsize=(9, 1 + 0.3 * rows), layout="constrained")
    axes.set_title(title, loc="left")
    return canvas, axes


def _finish(canvas: Any, axes: Any, figures: list[dict[str, Any]], file: Path) -> None:
    import matplotlib.pyplot as plt

    axes.set_yticks(range(len(figures)), [figure["text"] for figure in figures])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(file, metadata={"Date": None})
    plt.close(canvas)
    # matplotlib leaves blanks at line ends, which every diff would show.
    file.write_text("\n".join(line.rstrip() for line in file.read_text(encoding="utf-8").splitlines()) + "\n")
