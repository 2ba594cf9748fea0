"""Let a process go before others on a busy machine, as far as this system allows it.

Consensus waits for no one: an etcd that gets its processor a few hundred milliseconds late loses its leader, and all
agents feel it. Both the niceness of its threads and that of its session's autogroup count: on machines without control
groups the kernel shares the processors between sessions first (sched(7)).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PROC = Path("/proc")
_PASSES = 3


def prefer(pid: int, niceness: int) -> bool:
    """Set the niceness of every thread of `pid`, -20 (first) to 19; return whether it was allowed.

    Threads started later have that of the one which starts them. Nothing happens if the process has ended.
    """
    done: set[str] = set()
    for _ in range(_PASSES):  # one that was being started meanwhile may have missed it
        try:
            threads = set(os.listdir(_PROC / str(pid) / "task")) - done
            for thread in threads:
                os.setpriority(os.PRIO_PROCESS, int(thread), niceness)
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread, or all of it, has ended
        except PermissionError:
            return False
        done |= threads
    _prefer_session(pid, niceness)
    return bool(done)


def _prefer_session(pid: int, niceness: int) -> None:
    """The same for the session that `pid` leads; another's session is not ours to change."""
    with contextlib.suppress(OSError):
        if os.getsid(pid) == pid:
            (_PROC / str(pid) / "autogroup").write_text(str(niceness), encoding="ascii")
