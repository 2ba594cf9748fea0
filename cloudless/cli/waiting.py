"""Wait until the cluster shows something: poll with a deadline, and say meanwhile what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click

from cloudless.errors import StoreTimeout, Unavailable

T = TypeVar("T")
_POLL_S = 0.2


def wait_for(look: Callable[[], tuple[bool, T, str]], timeout_s: float, goal: str) -> T:
    """Return what `look` saw once it says it is done.

    `look` returns (done, value, what is missing). The missing is printed on stderr whenever it changes. Raises
    StoreTimeout, naming goal and the last thing missing; a cluster that cannot answer meanwhile counts as missing.
    """
    deadline_s, said = time.monotonic() + timeout_s, ""
    while True:
        try:
            done, value, missing = look()
        except Unavailable as error:
            done, missing = False, error.message
        if done:
            return value
        if time.monotonic() >= deadline_s:
            raise StoreTimeout(
                f"not {goal} after {timeout_s:g} s: {missing}", hint="it goes on without us; ask again later"
            )
        if missing != said:
            click.echo(f"waiting: {missing}", err=True)
            said = missing
        time.sleep(_POLL_S)
