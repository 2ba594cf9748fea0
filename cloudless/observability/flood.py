"""How many lines one place in the code may write: the first ones, then a sum of the rest.

A place is told by where it logs. In each window it may write `LINES_MAX` lines, and `SAME_MAX` times the same one; the
others are held back and counted, and told as one line when the window is over. Of lines that are passed on for somebody
else, and say of which kind they are, `KIND_MAX` of a kind are enough. The table is bounded: places that say
nothing for a while are forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

WINDOW_S = 10.0
LINES_MAX = 200
SAME_MAX = 5
KIND_MAX = 1
PLACES_MAX = 2_000


@dataclass(slots=True)
class _Window:
    began_s: float
    passed: int = 0
    held: int = 0
    place: Hashable = ""
    level: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """`count` lines of a place like `text` were not written within `over_s`."""

    place: Hashable
    level: str
    text: str
    count: int
    over_s: float


class Flood:
    """Counts lines of one process. Not for several threads at once: who writes lines has a lock already."""

    def __init__(self) -> None:
        self._windows: dict[Hashable, _Window] = {}
        self.held_total = 0

    def admit(self, place: Hashable, level: str, text: str, now_s: float, kind: str = "") -> bool:
        """Return whether a line may be written, else count it. Lines of one `kind` (default: the text) are the same."""
        for key, most in (((place, kind or text), KIND_MAX if kind else SAME_MAX), (place, LINES_MAX)):
            window = self._window(key, now_s)
            if window.passed >= most:
                window.held += 1
                window.place, window.level, window.text = place, level, text
                self.held_total += 1
                return False
            window.passed += 1
        return True

    def take_held(self, now_s: float, *, all_of_them: bool = False) -> list[Held]:
        """Return, once, what was held back in windows that are over; `all_of_them`: in the others too."""
        over = [
            (key, window)
            for key, window in self._windows.items()
            if all_of_them or now_s - window.began_s >= WINDOW_S
        ]  # fmt: skip
        for key, _ in over:
            del self._windows[key]
        return [
            Held(window.place, window.level, window.text, window.held, now_s - window.began_s)
            for _, window in over
            if window.held
        ]

    def _window(self, key: Hashable, now_s: float) -> _Window:
        window = self._windows.get(key)
        if window is None or (now_s - window.began_s >= WINDOW_S and not window.held):
            if window is None and len(self._windows) >= PLACES_MAX:
                self._forget_idle(now_s)
            window = self._windows[key] = _Window(now_s)
        return window

    def _forget_idle(self, now_s: float) -> None:
        """Make room: windows that are over, and if there are none the oldest. What they held is lost, not the sum."""
        idle = [key for key, window in self._windows.items() if now_s - window.began_s >= WINDOW_S and not window.held]
        for key in idle or list(self._windows)[: PLACES_MAX // 2]:
            del self._windows[key]
