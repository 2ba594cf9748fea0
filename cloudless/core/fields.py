"""Read decoded data strictly, collecting every problem with its path instead of stopping at the first.

`Fields` walks one mapping: each field is taken by its camelCase name, its snake_case spelling is
accepted, and what nobody took is refused by name, with the nearest known name. The input is hostile:
it may be deep, huge, cyclic, hold any type as a key, or numbers too long to print. So nothing is
walked that is not expected, every text quoted in a message is cut, and the number of problems is bounded.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TypeVar

from cloudless.core.quantity import parse_duration_s
from cloudless.errors import Problem

PROBLEMS_MAX = 50
SUGGESTIONS_MAX = 10
_QUOTED_MAX = 40
_HALF_PAIR = re.compile("[\ud800-\udfff]")

E = TypeVar("E", bound=Enum)
T = TypeVar("T")
_ABSENT = object()


class Problems:
    """The faults found so far; beyond `PROBLEMS_MAX` they are counted, not kept."""

    def __init__(self) -> None:
        self._kept: list[Problem] = []
        self._more = 0
        self._suggestions = 0

    def add(self, path: str, message: str) -> None:
        if len(self._kept) < PROBLEMS_MAX:
            self._kept.append(Problem(path, message))
        else:
            self._more += 1

    def add_unknown(self, path: str, name: object, known: Iterable[str], kind: str = "field") -> None:
        """Refuse a field (or whatever `kind` says) by name, with the nearest known one."""
        message = f"unknown {kind} {quote(name)}"
        if isinstance(name, str) and self._suggestions < SUGGESTIONS_MAX:
            self._suggestions += 1
            near = difflib.get_close_matches(to_camel(name[:_QUOTED_MAX]), list(known), n=1, cutoff=0.6)
            message += f"; did you mean {near[0]}?" if near else ""
        self.add(path, message)

    def found(self) -> tuple[Problem, ...]:
        if not self._more:
            return tuple(self._kept)
        return (*self._kept, Problem("", f"and {self._more} more problems"))


class Fields:
    """One mapping of the input. Take what is known, then `finish`."""

    def __init__(self, value: object, path: str, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self._known: list[str] = []
        self._left: dict[object, object] = {}
        if isinstance(value, dict):
            self._left = dict(value)
        elif value is not None:
            problems.add(path, f"must be a mapping of fields, not {describe(value)}")

    def has(self, name: str) -> bool:
        return name in self._left or to_snake(name) in self._left

    def take(self, name: str) -> object:
        """Return a field's value, None if it is not given or null."""
        self._known.append(name)
        value = self._left.pop(name, _ABSENT)
        snake = to_snake(name)
        other = self._left.pop(snake, _ABSENT) if snake != name else _ABSENT
        if value is not _ABSENT and other is not _ABSENT:
            self.problems.add(self.at(name), f"given twice, as {name} and as {snake}")
        chosen = other if value is _ABSENT else value
        return None if chosen is _ABSENT else chosen

    def accept(self, **spellings: str) -> None:
        """Take each of these other spellings for the field it stands for: `accept(tcpSocket="tcp")`."""
        for spelling, name in spellings.items():
            for written in dict.fromkeys((spelling, to_snake(spelling))):
                value = self._left.pop(written, _ABSENT)
                if value is _ABSENT:
                    continue
                if self.has(name):
                    self.problems.add(self.at(name), f"given twice, as {name} and as {written}")
                self._left.setdefault(name, value)

    def child(self, name: str) -> Fields:
        """Return the fields of a mapping; an absent one has none."""
        return Fields(self.take(name), self.at(name), self.problems)

    def refuse(self, *names: str) -> None:
        """Refuse fields that a later version will know."""
        for name in names:
            if self.has(name):
                self.take(name)
                self.problems.add(self.at(name), "is not supported by this version")
            else:
                self._known.append(name)

    def finish(self) -> None:
        """Refuse every field that nobody took."""
        for name in list(self._left)[: PROBLEMS_MAX + 1]:
            self.problems.add_unknown(self.path, name, self._known)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def text(self, name: str, default: str = "", *, length_max: int = 256) -> str:
        value = self.take(name)
        if value is None:
            return default
        return read_text(value, self.at(name), self.problems, length_max=length_max)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.problems.add(self.at(name), f"must be true or false, not {describe(value)}")
        return default

    def duration(self, name: str, default: float, *, least_s: float = 0.0, most_s: float) -> float:
        """Return seconds within bounds."""

        def parse(value: object) -> float:
            seconds = parse_duration_s(value)
            if not least_s <= seconds <= most_s:
                raise ValueError(f"must be {least_s:g} to {most_s:g} seconds")
            return seconds

        return self.parsed(name, default, parse)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value, path = self.take(name), self.at(name)
        if value is None:
            return default
        message = ""
        if isinstance(value, bool) or not isinstance(value, int):
            message = f"must be a whole number, not {describe(value)}{_unquote_advice(value)}"
        elif not least <= value <= most:
            message = f"must be {least} to {most}, not {quote(value)}"
        if message:
            self.problems.add(path, message)
            return default
        assert isinstance(value, int)
        return value

    def parsed(self, name: str, default: T, parse: Callable[[object], T]) -> T:
        """Return the value as `parse` reads it; its ValueError becomes a problem."""
        value = self.take(name)
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError as error:
            self.problems.add(self.at(name), f"{error}, not {quote(value)}")
            return default

    def choice(self, name: str, default: E) -> E:
        """Return the enum member of that value, as `read_choice` does."""
        value = self.take(name)
        return default if value is None else read_choice(value, default, self.at(name), self.problems)

    def mappings(self, name: str, wanted: str, *, count_max: int) -> list[Fields]:
        """Return the fields of each item of a list of mappings; `wanted` says in a message what one has."""
        found = []
        for path, item in self.items(name, count_max=count_max):
            if isinstance(item, dict):
                found.append(Fields(item, path, self.problems))
            else:
                self.problems.add(path, f"must be a mapping with {wanted}, not {describe(item)}")
        return found

    def items(self, name: str, *, count_max: int) -> list[tuple[str, object]]:
        """Return a list's items with their paths."""
        value, path = self.take(name), self.at(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.problems.add(path, f"must be a list, not {describe(value)}")
            return []
        if len(value) > count_max:
            self.problems.add(path, f"must have at most {count_max} items, not {len(value)}")
        return [(f"{path}[{index}]", item) for index, item in enumerate(value[:count_max])]

    def texts(self, name: str, *, count_max: int, length_max: int) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(
            read_text(item, path, self.problems, length_max=length_max)
            for path, item in self.items(name, count_max=count_max)
        )

    def text_map(
        self, name: str, key_pattern: re.Pattern[str], key_words: str, *, count_max: int, length_max: int, convert: bool
    ) -> dict[str, str]:
        """Return a mapping of text to text; with `convert`, numbers and true/false become text."""
        value, path = self.take(name), self.at(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problems.add(path, f"must be a mapping, not {describe(value)}")
            return {}
        if len(value) > count_max:
            self.problems.add(path, f"must have at most {count_max} entries, not {len(value)}")
        found: dict[str, str] = {}
        for key, item in list(value.items())[:count_max]:
            if not isinstance(key, str) or not key_pattern.fullmatch(key):
                self.problems.add(path, f"name {quote(key)} must be {key_words}")
                continue
            found[key] = read_text(item, f"{path}.{key}", self.problems, length_max=length_max, convert=convert)
        return found


def read_text(value: object, path: str, problems: Problems, *, length_max: int, convert: bool = False) -> str:
    """Return a text without NUL that can be encoded; with `convert`, a number or true/false is written out."""
    if convert and isinstance(value, bool | int | float):
        return _scalar_text(value, path, problems)
    if not isinstance(value, str):
        advice = "; write it in quotes" if isinstance(value, bool | int | float) else ""
        problems.add(path, f"must be text, not {describe(value)}{advice}")
        return ""
    if len(value) > length_max:
        problems.add(path, f"must be at most {length_max} characters long, not {len(value)}")
        return ""
    if "\0" in value:
        problems.add(path, "must not contain a NUL character")
        return ""
    if not value.isascii() and _HALF_PAIR.search(value):
        problems.add(path, "must be valid Unicode, without half a surrogate pair")
        return ""
    return value


def read_choice(value: object, default: E, path: str, problems: Problems) -> E:
    """Return the member of `default`'s enum that `value` names: NO_SCHEDULE, no-schedule or NoSchedule."""
    members = list(type(default))
    wanted = _letters(value[:64].strip()) if isinstance(value, str) else None
    for member in members:
        if _letters(str(member.value)) == wanted:
            return member
    names = ", ".join(str(member.value) for member in members)
    problems.add(path, f"must be one of {names}, not {quote(value)}")
    return default


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def describe(value: object) -> str:
    """Return what a value is, for `must be x, not …`."""
    match value:
        case None:
            return "null"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str() if not value:
            return "an empty text"
        case str() | bool() | int() | float():
            return quote(value)
        case _:
            return f"a {type(value).__name__}"


def quote(value: object) -> str:
    """Return a value as a manifest shows it, cut to a length that fits a message."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if abs(value) < 10**18 else "a number of more than 18 digits"
        case float():
            return repr(value)
        case str():
            cut = value if len(value) <= _QUOTED_MAX else value[:_QUOTED_MAX] + "…"
            return '"' + cut.encode("unicode_escape").decode("ascii").replace("\\u2026", "…") + '"'
        case _:
            return describe(value)


@functools.lru_cache(maxsize=512)
def to_snake(name: str) -> str:
    """Return `hostPort` as `host_port`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name)


def to_camel(name: str) -> str:
    """Return `host_port` as `hostPort`."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def _scalar_text(value: bool | int | float, path: str, problems: Problems) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        problems.add(path, "must be a finite number, or text in quotes")
        return ""
    if isinstance(value, int) and abs(value) >= 10**18:
        problems.add(path, "is too long for a number; write it in quotes")
        return ""
    return str(value)


def _unquote_advice(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}", value):
        return f"; write {value} without quotes"
    return ""
