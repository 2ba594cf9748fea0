"""The page docs/performance.md, made from the stored result and nothing else. Pure.

A test holds the page in the repository to this, so that it never says what was not measured.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from tests.bench.plots import PLOTS
from tests.bench.table import bar_text, number

_INTRODUCTION = """\
# Performance

What cloudless costs over what it is built on. Every figure is the median of repeated short runs, with its range. Raw
etcd and empty gRPC calls are measured in the same run, in turns with ours, so the ratios hold on other machines better
than the figures do. All load is on loopback; coordinators, etcd members and the load share the machine's processors.

`scripts/bench --write-docs` measures all, or the sections named after it, and writes this page from
`docs/results/bench.json`; `scripts/bench --redraw` writes it again from what is stored. `scripts/bench --profile
SECTION` shows where a section's time goes.
"""


def page_of(result: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *_facts(result), *_bars(result), *_sections(result)])


def _facts(result: dict[str, Any]) -> Iterator[str]:
    machine, versions = result["machine"], result["versions"]
    yield f"Measured {result['date']}" + (", in a quick run: few and short rounds." if result["quick"] else ".")
    yield (
        f"{machine['cpus']} processors ({machine['cpu_model']}), {machine['memory_mb'] / 1024:.0f} GB, "
        f"{machine['system']}, Linux {machine['kernel']}; load before the run {machine['load_1min_at_start']}."
    )
    yield ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    yield ""


def _bars(result: dict[str, Any]) -> Iterator[str]:
    judged = [(name, f) for name, section in result["sections"].items() for f in section["figures"] if f["bar"]]
    met = sum(figure["met"] for _, figure in judged)
    yield f"## Goals: {met} of {len(judged)} met"
    yield ""
    yield "![each figure over its goal](plots/goals.svg)"
    yield ""
    yield "| section | figure | median | range | goal |"
    yield "|---|---|---:|---:|---|"
    for name, figure in judged:
        yield f"| {name} | {_cells(figure)} |"
    yield ""


def _sections(result: dict[str, Any]) -> Iterator[str]:
    for name, section in result["sections"].items():
        yield f"## {name}"
        yield ""
        yield (importlib.import_module(f"tests.bench.sections.{name}").__doc__ or "").strip()
        yield ""
        if (date := section.get("date", result["date"]))[:10] != result["date"][:10]:
            yield f"Measured {date} at commit {section['commit']}, apart from the others."
            yield ""
        if "failed" in section:
            yield f"Could not be measured: {section['failed']}"
            yield ""
            continue
        if name in PLOTS:
            yield f"![{PLOTS[name].title}](plots/{name}.svg)"
            yield ""
        yield "| figure | median | range | goal |"
        yield "|---|---:|---:|---|"
        for figure in section["figures"]:
            yield f"| {_cells(figure)} |"
        yield ""


def _cells(figure: dict[str, Any]) -> str:
    unit = "" if figure["unit"] == "ratio" else f" {figure['unit']}".rstrip()
    values = f"{number(figure['min'])} … {number(figure['max'])}" if figure["n"] > 1 else ""
    return f"{figure['text']} | {number(figure['median'])}{unit} | {values} | {bar_text(figure)}"
