"""A run's results as one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable

from tests.faults.catalogue import BY_NUMBER
from tests.faults.rig.results import Result

_HEAD = """<!doctype html><meta charset="utf-8"><title>Faults</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .3rem .6rem; text-align: left; vertical-align: top; }
tr { border-top: 1px solid #ccc; } .passed { color: #186; } .failed { color: #b22; } .skipped { color: #777; }
details { font-size: 90%; } pre { white-space: pre-wrap; margin: 0; }
</style>
"""


def render(results: Iterable[Result]) -> str:
    """Return the page."""
    rows = list(results)
    count = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("passed", "failed", "skipped")}
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
    return f"{_HEAD}<h1>Faults: {told}</h1><table>{''.join(map(_row, rows))}</table>\n"


def _row(result: Result) -> str:
    promises = "<br>".join(f"{number}. {html.escape(BY_NUMBER[number].promise)}" for number in result["numbers"])
    figures = "<br>".join(f"{html.escape(name)} {value}" for name, value in result["figures"].items())
    events = "\n".join(f"{at_s:8.2f} s  {what}" for at_s, what in result["timeline"])
    outcome = result["outcome"]
    return (
        f"<tr><td>{promises}<details><summary>{html.escape(result['test'])}</summary>"
        f"<pre>{html.escape(events)}</pre></details></td>"
        f'<td class="{outcome}">{outcome}<br>{html.escape(result["reason"])}</td><td>{figures}</td>'
        f"<td>{result['took_s']} s<br>{result['date']}<br>etcd {html.escape(result['etcd'])}</td></tr>"
    )
