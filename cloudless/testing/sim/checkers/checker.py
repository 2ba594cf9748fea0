"""What every checker is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Violation(Exception):
    """Something happened that must not."""

    def __init__(self, checker: str, message: str) -> None:
        self.checker = checker
        super().__init__(message)


class Checker:
    """One idea of what must hold. Methods named `on_<Happening>` are told those; `finish` is called at a good end."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def listener(self, kind: type[Any]) -> Callable[[Any], None] | None:
        """Return what is to be told happenings of `kind`, None if this one does not care."""
        found: Callable[[Any], None] | None = getattr(self, f"on_{kind.__name__}", None)
        return found

    def finish(self) -> None:
        """The run is over and converged."""

    def refuse(self, message: str) -> Violation:
        return Violation(type(self).__name__, message)
