"""docs/faults.md: one row a fault, made from the catalogue, the tests and the results kept beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tests.faults.catalogue import FAULTS, Fault
from tests.faults.rig.collection import Proof
from tests.faults.rig.results import Result

PAGE = "docs/faults.md"
RESULTS = "docs/results/faults.json"

_HEAD = """\
# Faults this cluster survives

Every row is a promise with a number, and the test that breaks a real cluster to see whether it is kept: real
coordinators, agents and etcd members as processes, with certificates and roles as every cluster has them (but for 28),
each on a network of its own where the network is what fails. Users write and read all the while; a test that reached
too little load before its fault fails. After every fault the same
questions are asked: is every acknowledged write there, once, at its revision; did a leader write after a later one had;
did any coordinator's or agent's revision go back; are all states equal, to each other and to a fresh read, and etcd's
own hashes; was any task touched; did every request end in time; is a process, descriptor or thread left over; does a
secret show; did it converge inside its bound.

`scripts/faults` runs all of it, `scripts/faults --only 11` one row, `scripts/faults --write-docs` writes this page from
`docs/results/faults.json`. Figures are of each test's latest run, on a small shared machine; of several rounds the
worst is told. Promises without a test wait for the feature named.
"""


def render(proofs: Iterable[Proof], results: Iterable[Result]) -> str:
    """Return the page."""
    by_test = {result["test"]: result for result in results}
    tests = list(proofs)
    parts = [_HEAD]
    for group, faults in itertools.groupby(FAULTS, key=lambda fault: fault.group):
        parts.append(f"\n## {group}\n\n| # | promise | test | result |\n|--:|---|---|---|\n")
        parts += [_row(fault, [p for p in tests if fault.number in p.scenario.numbers], by_test) for fault in faults]
    return "".join(parts)


def _row(fault: Fault, proofs: list[Proof], by_test: dict[str, Result]) -> str:
    if fault.waiting_for:
        return f"| {fault.number} | {fault.promise} | | waiting for {fault.waiting_for} |\n"
    tests = "<br>".join(f"`{proof.test}`" for proof in proofs)
    told = "<br>".join(_tell(by_test.get(proof.test)) for proof in proofs)
    return f"| {fault.number} | {fault.promise} | {tests or 'none yet'} | {told or 'not tested'} |\n"


def _tell(result: Result | None) -> str:
    if result is None:
        return "not run"
    figures = ", ".join(
        f"{name.removesuffix('_s').replace('_', ' ')} {_figure(name, value)}"
        for name, value in result["figures"].items()
    )
    rounds = f"{result['rounds']} rounds, " if result["rounds"] > 1 else ""
    reason = f" ({result['reason'].splitlines()[0]})" if result["reason"] else ""
    told = f"{result['outcome']}{reason}; {rounds}{figures}".rstrip("; ").rstrip(", ")
    return f"{told} ({result['date']}, etcd {result['etcd']})" if result["etcd"] else f"{told} ({result['date']})"


def _figure(name: str, value: float) -> str:
    return f"{value:g} s" if name.endswith("_s") else f"{value:g}"
