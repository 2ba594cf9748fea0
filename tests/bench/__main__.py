"""`scripts/bench`: measure cloudless beside raw etcd and empty gRPC calls, in one run, on this machine's loopback.

Sections are modules of `tests.bench.sections` with `measure(bench) -> list[Figure]`. The result is JSON; with
`--write-docs` it becomes docs/results/bench.json and what `tests.bench.docs` makes of that.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.architecture.tree import ROOT
from tests.bench.bench import QUICK, Bench
from tests.bench.docs import page_of
from tests.bench.figures import SCHEMA
from tests.bench.hotspots import show_hotspots
from tests.bench.machine import machine_facts, versions
from tests.bench.plots import draw
from tests.bench.table import table_of

SECTIONS = {
    "transport": "what gRPC on asyncio can carry here at all",
    "writes": "durable writes beside raw etcd puts and empty calls",
    "telling": "what metrics and the HTTP API cost durable writes",
    "reads": "gets by consistency, lists beside etcd's range",
    "watch": "apply lag at 5,000 changes a second, a watch with 1,000 readers",
    "following": "lag of the API's readers at 5,000 changes a second",
    "startup": "a coordinator with 100,000 tasks, a cluster, the command line",
    "failover": "gaps after faults beside bare etcd losing its leader",
    "memory": "each process idle, and after a minute of writes",
    "agents": "1,000 simulated agents given tasks, 5,000 held through a leader's death",
    "scheduler": "placements a second on 1,000 to 10,000 nodes",
}
PROFILED_S = 8.0
PAGE = ROOT / "docs/performance.md"
RESULT = ROOT / "docs/results/bench.json"


def main() -> int:
    # Ended from outside, a section still takes down what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _parse()
    if options.profile:
        return _profile(options)
    if options.redraw:
        _write_docs(json.loads(RESULT.read_text(encoding="utf-8")))
        return 0
    result = _measure_all(options)
    if options.json:
        _write_json(options.json, result)
    if options.write_docs:
        stored = json.loads(RESULT.read_text(encoding="utf-8")) if options.sections else {}
        result = put_beside(stored, result)
        _write_json(RESULT, result)
        _write_docs(result)
    failed = [name for name, section in result["sections"].items() if "failed" in section]
    print(f"failed: {', '.join(failed)}" if failed else "all measured", file=sys.stderr)
    return 1 if failed else 0


def _measure_all(options: argparse.Namespace) -> dict[str, Any]:
    bench = _bench(options)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "date": _now(),
        "quick": options.quick,
        "machine": machine_facts(),
        "versions": versions(),
        "sections": {},
    }
    for name in options.sections or SECTIONS:
        print(f"--- {name}: {SECTIONS[name]}", file=sys.stderr)
        date = _now()
        measured = _measured_or_failed(name, bench)
        result["sections"][name] = {"date": date, "commit": result["versions"]["commit"], **measured}
        print(f"{'' if not sys.stderr.isatty() else chr(10)}{table_of(result['sections'][name])}", flush=True)
    return result


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")


def put_beside(stored: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """Return the stored result with the sections measured anew; each has its baseline within it, and its own date.

    Ends the program if they are not of one machine and the same versions: such figures do not stand side by side.
    """
    if not stored:
        return fresh
    versions = tuple(name for name in fresh["versions"] if name != "commit")
    for what, names in (("machine", ("cpus", "cpu_model")), ("versions", versions)):
        differ = [name for name in names if stored[what].get(name) != fresh[what].get(name)]
        if differ:
            sys.exit(f"the stored figures are of another {differ[0]}: measure all with `scripts/bench --write-docs`")
    sections = {**stored["sections"], **fresh["sections"]}
    return {**stored, "sections": {name: sections[name] for name in SECTIONS if name in sections}}


def _measured_or_failed(name: str, bench: Bench) -> dict[str, Any]:
    """Measure a section; one that cannot be measured here must not cost the figures of the others."""
    started_s = time.monotonic()
    try:
        return asyncio.run(_measured(name, bench))
    except Exception as error:
        traceback.print_exception(error)
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        said = f"{type(cause).__name__}: {cause}".splitlines()[0][:200]
        return {"took_s": round(time.monotonic() - started_s, 1), "figures": [], "failed": said}


def _write_json(file: Path, result: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_docs(result: dict[str, Any]) -> None:
    PAGE.write_text(page_of(result), encoding="utf-8")
    draw(result, PAGE.parent / "plots")


def _profile(options: argparse.Namespace) -> int:
    """Measure one section with its busiest process under cProfile, which slows that down to about half."""
    with tempfile.TemporaryDirectory(prefix="cloudless-profile-") as folder:
        bench = replace(_bench(options), profile_dir=Path(folder), rounds=1, slice_s=PROFILED_S)
        print(table_of(asyncio.run(_measured(options.profile, bench))))
        show_hotspots(Path(folder))
    return 0


async def _measured(name: str, bench: Bench) -> dict[str, Any]:
    section = importlib.import_module(f"tests.bench.sections.{name}")
    started_s = time.monotonic()
    figures = await section.measure(bench)
    return {"took_s": round(time.monotonic() - started_s, 1), "figures": [figure.to_plain() for figure in figures]}


def _bench(options: argparse.Namespace) -> Bench:
    settings: dict[str, Any] = {**(QUICK if options.quick else {})}
    if options.rounds:
        settings["failovers"] = options.rounds
    if options.nodes:
        settings["nodes"] = options.nodes
    if options.only:
        settings["only"] = tuple(options.only)
    return Bench(**settings)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure cloudless beside raw etcd and empty calls, on loopback.",
        epilog="sections:\n" + "\n".join(f"  {name:<10} {text}" for name, text in SECTIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to see that it works")
    parser.add_argument("--rounds", type=int, metavar="N", help="failovers of each kind (default 10)")
    parser.add_argument("--nodes", type=int, metavar="N", help="simulated agents, instead of the section's own numbers")
    parser.add_argument("--profile", metavar="SECTION", choices=[*SECTIONS], help="show where its time goes")
    parser.add_argument(
        "--only", action="append", metavar="STEP", help="only steps whose name contains this; may be repeated"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="store the result under docs/, in place of that of the same sections, and write its page",
    )
    parser.add_argument("--redraw", action="store_true", help="measure nothing; write the page from the stored result")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}: {', '.join(SECTIONS)}")
    if options.write_docs and (options.only or options.nodes or (options.quick and options.sections)):
        parser.error("--write-docs goes with whole sections: the page shows what each of them measures, none less")
    return options


if __name__ == "__main__":
    sys.exit(main())
