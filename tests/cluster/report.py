"""What a run came to: as text for people, as JSON and JUnit for programs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Result:
    """One check: how it ended, after how long, and what was seen."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    words: str = ""


def has_passed(results: Sequence[Result]) -> bool:
    """Return whether every check ran and passed; a run without any has proved nothing."""
    return bool(results) and all(result.outcome is Outcome.PASSED for result in results)


def to_line(result: Result) -> str:
    mark = {Outcome.PASSED: "ok  ", Outcome.FAILED: "FAIL", Outcome.NOT_RUN: "--  "}[result.outcome]
    return f"{mark} {result.seconds:6.1f} s  {result.name}{': ' if result.words else ''}{result.words}"


def to_text(results: Sequence[Result]) -> str:
    """Return the report, its last line the verdict."""
    count = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    verdict = "PASSED" if has_passed(results) else "FAILED"
    told = ", ".join(f"{number} {outcome.value}" for outcome, number in count.items())
    return "\n".join([*map(to_line, results), "", f"{verdict}: {told}, {_seconds(results):.0f} s", ""])


def to_json(results: Sequence[Result]) -> str:
    rows = [{**asdict(result), "outcome": result.outcome.value} for result in results]
    return json.dumps({"passed": has_passed(results), "seconds": _seconds(results), "checks": rows}, indent=1) + "\n"


def to_junit(results: Sequence[Result]) -> str:
    failed = sum(result.outcome is Outcome.FAILED for result in results)
    skipped = sum(result.outcome is Outcome.NOT_RUN for result in results)
    suite = ElementTree.Element(
        "testsuite", name="ha-cluster", tests=str(len(results)), failures=str(failed), skipped=str(skipped), errors="0",
        time=f"{_seconds(results):.3f}",
    )  # fmt: skip
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname="ha-cluster", name=result.name, time=f"{result.seconds:.3f}"
        )
        if result.outcome is Outcome.FAILED:
            ElementTree.SubElement(case, "failure", message=result.words).text = result.words
        elif result.outcome is Outcome.NOT_RUN:
            ElementTree.SubElement(case, "skipped", message=result.words)
        else:
            ElementTree.SubElement(case, "system-out").text = result.words
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def write_report(results: Sequence[Result], text_file: Path) -> None:
    """Write the report to `text_file`, and beside it with the endings .json and .xml."""
    text_file.parent.mkdir(parents=True, exist_ok=True)
    text_file.write_text(to_text(results), encoding="utf-8")
    text_file.with_suffix(".json").write_text(to_json(results), encoding="utf-8")
    text_file.with_suffix(".xml").write_text(to_junit(results), encoding="utf-8")


def _seconds(results: Sequence[Result]) -> float:
    return sum(result.seconds for result in results)
