"""Run a module under cProfile in processor time: `python profiled.py OUT now|later MODULE ARGUMENTS…`.

Processor time of the main thread, because waiting, and a machine that is shared, would otherwise drown what costs.
`later` begins at SIGUSR1, so that a program's start is left out. The profile is written when the program ends.
"""

from __future__ import annotations

import cProfile
import runpy
import signal
import sys
import time


def main() -> None:
    out, when, module = sys.argv[1:4]
    sys.path.pop(0)  # this folder: its modules have common names
    sys.argv = [module, *sys.argv[4:]]
    profile = cProfile.Profile(time.thread_time)
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    if when == "now":
        profile.enable()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        profile.disable()
        profile.dump_stats(out)


if __name__ == "__main__":
    main()
