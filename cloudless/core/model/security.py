"""What a task may do on its node: as whom it runs, and within which bounds."""

from __future__ import annotations

from dataclasses import dataclass

RLIMIT_UNLIMITED = -1

RLIMIT_NAMES = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
"""The kernel's limits per process, as setrlimit(2) names them (RLIMIT_NOFILE: nofile), with its units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One of `RLIMIT_NAMES`: the limit in force, and how far the task may raise it. RLIMIT_UNLIMITED: no limit."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """As whom and within which bounds a task runs.

    `run_as_user` and `run_as_group` are numeric ids; None leaves what the executor or the image says.
    Capabilities are named as in capabilities(7) without `CAP_`; ALL stands for every one, and dropping comes
    before adding. `private_tmp`: the task has a /tmp of its own. `rlimits` are sorted by name.
    """

    run_as_user: int | None = None
    run_as_group: int | None = None
    read_only_root: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    private_tmp: bool = False
    rlimits: tuple[Rlimit, ...] = ()
