"""What never leaves this process in a log line or a trace, however it got into the words.

Two nets: `core.redaction` knows secrets by their look and by the names they stand beside; here are kept, besides, the
values that this process itself was given as secrets (a join token, a task's environment), which look like nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudless.core.redaction import MARK, is_secret_name, redact

KEPT_MAX = 2_000
"""The oldest are forgotten first: more secrets than that are not in use at once."""
LENGTH_MIN = 6
"""Shorter values are words like any other: taking them out would leave nothing to read."""

_kept: dict[str, None] = {}
_longest_first: tuple[str, ...] = ()
"""The same: one may begin with another, and its end must not be left over."""


def keep_secret(*values: str) -> None:
    """Take these values out of all that is written from now on."""
    global _longest_first
    new = [value for value in values if len(value) >= LENGTH_MIN and value not in _kept]
    if not new:
        return
    _kept.update(dict.fromkeys(new))
    while len(_kept) > KEPT_MAX:
        del _kept[next(iter(_kept))]
    _longest_first = tuple(sorted(_kept, key=len, reverse=True))


def keep_secrets_of(environment: Mapping[str, str]) -> None:
    """Do that with the values of those variables whose name says that they are secret."""
    keep_secret(*_secret_values(environment.items()))


def clean(text: str) -> str:
    """Return `text` without secrets."""
    return redact(without_kept(text))


def without_kept(text: str) -> str:
    """Return `text` without the values that are kept, and all else as it is: for what people need word for word."""
    for value in _longest_first:
        if value in text:
            text = text.replace(value, MARK)
    return text


def _secret_values(environment: Iterable[tuple[str, str]]) -> list[str]:
    return [value for name, value in environment if is_secret_name(name)]
