"""A section's figures as text for a terminal."""

from __future__ import annotations

from typing import Any

SIGNS = {"at_least": "≥", "at_most": "≤"}


def table_of(section: dict[str, Any]) -> str:
    """Return one line a figure: text, median, range, and the bar with whether it is met."""
    width = max((len(figure["text"]) for figure in section["figures"]), default=0)
    return "\n".join(_line(figure, width) for figure in section["figures"])


def _line(figure: dict[str, Any], width: int) -> str:
    unit = "" if figure["unit"] == "ratio" else figure["unit"]
    values = f"{number(figure['median']):>10} {unit:<4} ({number(figure['min'])} … {number(figure['max'])})"
    return f"{figure['text']:<{width}} {values:<42}{bar_text(figure)}".rstrip()


def bar_text(figure: dict[str, Any]) -> str:
    """Return `≥ 0.5 met`, "" for a figure without a bar."""
    bar = figure["bar"]
    return f"{SIGNS[bar['relation']]} {bar['value']:g} {'met' if figure['met'] else 'NOT met'}" if bar else ""


def number(value: float) -> str:
    """Return a figure as a person writes it: thousands apart, no more digits than were measured."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
