"""Show findings: for people in blocks, one each; for programs as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from cloudless.cli.options import Options
from cloudless.cli.output import colored, show_plain
from cloudless.core.diagnosis import Finding, Severity, is_sick

_COLOURS = {Severity.TROUBLE: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_WIDTH = max(len(severity.value) for severity in Severity) + 2


def show_findings(options: Options, findings: Sequence[Finding], looked_at: Sequence[str]) -> None:
    """Print findings in the form asked for; `looked_at` says what was examined."""
    if options.output in ("json", "yaml"):
        return show_plain(options, plain_findings(findings, looked_at))
    if options.output == "name":
        return click.echo("".join(f"finding/{finding.code}\n" for finding in findings), nl=False)
    for finding in findings:
        _show(options, finding)
    click.echo(f"looked at {', '.join(looked_at)}: {count_words(findings)}", err=True)
    return None


def _show(options: Options, finding: Finding) -> None:
    head = f"{finding.severity.value:<{_WIDTH}}"
    coloured = click.style(head, fg=_COLOURS[finding.severity], bold=True) if colored(options) else head
    click.echo(f"{coloured}{finding.says}  [{finding.code}]")
    for label, words in (*(("seen", words) for words in finding.evidence), ("cure", finding.cure)):
        click.echo(f"{'':<{_WIDTH}}{label}: {words}")
    click.echo()


def count_words(findings: Sequence[Finding]) -> str:
    counted = Counter(finding.severity for finding in findings)
    words = [f"{counted[severity]} {severity.value}{'s' * (counted[severity] > 1)}" for severity in Severity]
    return ", ".join(word for word in words if not word.startswith("0 ")) or "nothing found"


def plain_findings(findings: Sequence[Finding], looked_at: Sequence[str]) -> dict[str, Any]:
    return {
        "healthy": not is_sick(tuple(findings)),
        "lookedAt": list(looked_at),
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "subject": finding.subject,
                "says": finding.says,
                "evidence": list(finding.evidence),
                "cure": finding.cure,
            }
            for finding in findings
        ],
    }
