"""`scripts/sim`: run many seeds in two processes, show how far it is, and print every failure with its way back."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any

from cloudless.testing.sim.options import FULL, SMALL, Options, draw_options
from cloudless.testing.sim.report import explain, rerun_command
from cloudless.testing.sim.run import Result, collecting_later, run_seed

PROCESSES = 2
CHUNK = 25
FAILURES_MAX = 20
PR_SET_PDEATHSIG = 1


def main() -> int:
    """Return 1 if a seed failed."""
    options = _parse()
    if options.seed is not None:
        result = run_seed(_draw(options.seed, options), keep_trace=options.trace)
        print("\n".join(explain(result, whole=options.trace)))
        _write_json(options.json, [result])
        return int(result.failed)
    results = list(_run_many(options))
    failed = [result for result in results if result.failed]
    _write_json(options.json, results)
    for result in failed[:FAILURES_MAX]:
        print("\n".join(explain(result)), end="\n\n")
    return int(bool(failed))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds (default 1000)")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--seed", type=int, help="run this one and say what happened")
    parser.add_argument("--trace", action="store_true", help="with --seed: the whole trace, not only its tail")
    parser.add_argument("--coordinators", type=int, default=0, help="how many (default: as the seed says)")
    parser.add_argument("--size", choices=(SMALL, FULL), default=SMALL, help="how long and how large a run is")
    parser.add_argument("--members", action="store_true", help="members of etcd come and go in every run")
    parser.add_argument("--certificates", action="store_true", help="everybody has certificates in every run")
    parser.add_argument("--placing", action="store_true", help="workloads want much of nodes in every run")
    parser.add_argument("--rebalancing", action="store_true", help="tasks are moved to better nodes in every run")
    parser.add_argument("--json", help="write all results to this file")
    return parser.parse_args()


def _run_many(options: argparse.Namespace) -> Iterator[Result]:
    began_s = time.monotonic()
    done = failed = 0
    seeds = range(options.first, options.first + options.seeds)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=begin_worker) as pool:
        chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
        futures = [pool.submit(run_chunk, [_draw(seed, options) for seed in chunk]) for chunk in chunks]
        for future in as_completed(futures):
            for result in future.result():
                done, failed = done + 1, failed + result.failed
                if result.failed:
                    print(f"\n{result.checker}: {result.problem}\n  {rerun_command(result.options)}", file=sys.stderr)
                yield result
            rate = done / (time.monotonic() - began_s) * 60
            print(f"\r{done} of {len(seeds)} seeds, {failed} failed, {rate:.0f} a minute", end="", file=sys.stderr)
    print(file=sys.stderr)


def begin_worker() -> None:
    """Be a worker: modules and what they hold are of no interest to the collector."""
    die_with_parent()
    gc.freeze()  # once: what a run has left would be kept for ever


def die_with_parent() -> None:
    """Let the kernel end this worker when whoever started it is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _draw(seed: int, options: argparse.Namespace) -> Options:
    return draw_options(
        seed,
        size=options.size,
        coordinators=options.coordinators,
        members=options.members,
        certificates=options.certificates,
        placing=options.placing,
        rebalancing=options.rebalancing,
    )


def run_chunk(chunk: list[Options]) -> list[Result]:
    """Run several seeds, one after the other."""
    with collecting_later():
        return [run_seed(options) for options in chunk]


def _write_json(path: str | None, results: list[Result]) -> None:
    if path is None:
        return
    rows: list[dict[str, Any]] = [asdict(result) for result in sorted(results, key=lambda r: r.options.seed)]
    for row in rows:
        if not row["problem"]:
            row["trace_tail"] = []
    with open(path, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
