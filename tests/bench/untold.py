"""Run a module that tells no metrics: `python untold.py MODULE ARGUMENTS…`. To measure beside it what telling costs.

Everything that would be counted or timed as it happens is dropped at once.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable


def _drop(value: float) -> None:
    return None


def _dropper(*what: object) -> Callable[[float], None]:
    return _drop


def _note_nothing(*what: object) -> None:
    return None


def main() -> None:
    sys.path.pop(0)  # this folder: its modules have common names
    sys.argv = sys.argv[1:]
    from cloudless.coordinator.commit_figures import CommitFigures
    from cloudless.observability.registry import ProcessMetrics
    from cloudless.observability.requests import RequestMetrics

    replaced: list[tuple[type, str, Callable[..., object]]] = [
        (ProcessMetrics, "observer", _dropper),
        (ProcessMetrics, "counter", _dropper),
        (RequestMetrics, "observe", _note_nothing),
        (CommitFigures, "note", _note_nothing),
    ]
    for owner, name, instead in replaced:
        assert callable(getattr(owner, name)), "it is called otherwise now"
        setattr(owner, name, instead)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
