"""Which nodes a change of the state touches: those whose room may be another after it."""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.core import keys
from cloudless.core.keys import Kind
from cloudless.core.model import TaskDesired, TaskObserved
from cloudless.core.state.machine import Transition
from cloudless.core.state.view import View

_OF_NODES = frozenset({Kind.NODE_SPEC, Kind.NODE_INFO, Kind.NODE_STATUS})
_OF_TASKS = frozenset({Kind.TASK_DESIRED, Kind.TASK_OBSERVED})


def find_touched(transition: Transition, view: View) -> Iterator[str]:
    """Yield the ids of nodes whose records changed, or whose tasks did; records that cannot be read count too."""
    parsed = keys.parse(transition.key)
    if parsed is None:
        return
    if parsed.kind in _OF_NODES:
        yield parsed.parts[0]
    elif parsed.kind in _OF_TASKS:
        task = view.tasks.get(parsed.parts[0])
        if task is not None:
            yield task.desired.node_id
        for record in (transition.before, transition.after):
            if isinstance(record, TaskDesired | TaskObserved):
                yield record.node_id
