"""Tell a person what is being done and waited for: one line per step, the current one alive on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Detail = Callable[[str], None]
"""Says what the running step waits for right now."""


class Progress:
    """Steps on stderr; without a terminal only beginnings that matter and ends."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = ""

    @contextmanager
    def step(self, goal: str) -> Iterator[Detail]:
        """Show `goal` while the block runs and how long it took; the block may say what it waits for."""
        started_s = time.monotonic()
        self._last = ""

        def detail(text: str) -> None:
            if text and text != self._last:
                self._last = text
                self._show(f"  … {goal}: {text}")

        self._show(f"  … {goal}")
        try:
            yield detail
        except BaseException:
            self._end(click.style("  ✗ ", fg="red") + goal + (f" ({self._last})" if self._last else ""))
            raise
        self._end(click.style("  ✓ ", fg="green") + f"{goal}  {time.monotonic() - started_s:.1f} s")

    def say(self, text: str) -> None:
        """Print one line of its own."""
        self._end(text)

    def _show(self, text: str) -> None:
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            click.echo("\r\x1b[K" + text[: columns - 1], err=True, nl=False)

    def _end(self, text: str) -> None:
        click.echo(("\r\x1b[K" if self._terminal else "") + text, err=True)
