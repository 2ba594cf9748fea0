"""`scripts/faults`: run the scenarios one after the other, each in a sandbox and a pytest of its own.

A scenario that hangs, or takes its pytest down with it, costs itself and nothing else: its sandbox ends with it. What
failed keeps its directory (logs, data, pytest's output); what passed leaves nothing unless `--keep`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.architecture.tree import ROOT
from tests.faults.rig import docs, page, sandbox
from tests.faults.rig.collection import Proof, find_proofs, select
from tests.faults.rig.results import Result, failed_result, merge, read_results, write_results

SPARE_S = 60.0
"""What a scenario may take beyond its own budget, before its pytest is ended from outside."""


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parse(arguments)
    # So that the sandbox under way ends with us; an interrupt from the keyboard does that by itself.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    proofs = find_proofs()
    if asked.write_docs:
        (ROOT / docs.PAGE).write_text(docs.render(proofs, read_results(ROOT / docs.RESULTS)))
        return 0
    chosen = [proof for word in asked.only or [""] for proof in select(proofs, word)]
    if not chosen:
        print(f"no scenario is called, or proves, {' '.join(asked.only)}", file=sys.stderr)
        return 2
    if lack := sandbox.lack():
        print(f"no sandbox here ({lack}): scenarios that need one are skipped", file=sys.stderr)
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    results = []
    for number, proof in enumerate(chosen, 1):
        results.append(_run_one(proof, work, asked, number, len(chosen)))
        _write(results, proofs, asked)  # after each: a run that is broken off has told what it knows
    _tell(results)
    if not any(work.iterdir()):
        work.rmdir()
    return int(any(result["outcome"] == "failed" for result in results))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Break a real cluster, promise by promise.")
    parser.add_argument("--only", action="append", help="a fault's number, or a part of a test's name; may be repeated")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each scenario, instead of its own number")
    parser.add_argument("--json", type=Path, help="write the results to this file, merged with what it holds")
    parser.add_argument("--html", type=Path, help="write the results to this file as a page")
    parser.add_argument("--keep", action="store_true", help="keep the logs and data of what passed, too")
    parser.add_argument("--write-docs", action="store_true", help=f"only write {docs.PAGE} from {docs.RESULTS}")
    return parser.parse_args(arguments)


def _run_one(proof: Proof, work: Path, asked: argparse.Namespace, number: int, count: int) -> Result:
    numbers = ",".join(map(str, proof.scenario.numbers))
    print(f"[{number}/{count}] {numbers}: {proof.test} ", end="", flush=True)
    home = work / proof.test
    home.mkdir(parents=True)
    began_s = time.monotonic()
    _run_pytest(proof, home, asked.rounds)
    told = home / f"{proof.test}.json"
    if told.exists():
        result: Result = json.loads(told.read_text())
    else:
        result = failed_result(proof, f"no result after {time.monotonic() - began_s:.0f} s, see {home}")
    if result["outcome"] != "failed" and not asked.keep:
        shutil.rmtree(home)
    kept = f", see {home}" if home.exists() else ""
    print(f"{result['outcome']} in {time.monotonic() - began_s:.0f} s{kept}  {result['reason'].partition(chr(10))[0]}")
    return result


def _run_pytest(proof: Proof, home: Path, rounds: int) -> None:
    command = [
        sys.executable, "-m", "pytest", proof.node_id, "-m", "", "-q", "-p", "no:cacheprovider",
        f"--basetemp={home / 'data'}", f"--fault-results={home}", f"--fault-rounds={rounds}",
    ]  # fmt: skip
    if not sandbox.lack():
        command = sandbox.wrap(command)
    with (home / "pytest.log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            child.wait(proof.scenario.budget_for(rounds) + SPARE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            child.kill()
            child.wait()


def _write(results: list[Result], proofs: Iterable[Proof], asked: argparse.Namespace) -> None:
    if asked.json:
        write_results(asked.json, merge(read_results(asked.json), results, {proof.test for proof in proofs}))
    if asked.html:
        asked.html.write_text(page.render(results))


def _tell(results: list[Result]) -> None:
    print()
    for result in results:
        figures = ", ".join(f"{name} {value}" for name, value in result["figures"].items())
        print(f"{','.join(map(str, result['numbers'])):>6}  {result['outcome']:8} {result['test']}  {figures}")
    count = {outcome: sum(row["outcome"] == outcome for row in results) for outcome in ("passed", "failed", "skipped")}
    print(", ".join(f"{number} {outcome}" for outcome, number in count.items()))


if __name__ == "__main__":
    sys.exit(main())
