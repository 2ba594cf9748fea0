"""Choose which tasks' output a caller gets, from one view.

::

    one task            that one
    a workload, first   its living tasks; if there is none, those that have ended
    ... followed, then  tasks that are new, and attempts that are new, each from its beginning

What has been read, or was there and not chosen at first, is not begun again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping
from dataclasses import dataclass

from cloudless.core.model import TaskState
from cloudless.core.orchestration import WorkloadState, summarise_workload
from cloudless.core.state import Task, View

TASKS_AT_ONCE_MAX = 50

_BEGUN = frozenset({TaskState.RUNNING, TaskState.BACKOFF, TaskState.STOPPING})
_OVER = (WorkloadState.COMPLETED, WorkloadState.FAILED)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for: a workload (of that uid: not a later one of the same name), or one task of it."""

    namespace: str
    workload: str
    task_id: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A task to read, from the attempt that was seen. `whole`: all of it, however few lines were asked for."""

    task: Task
    attempt: int
    whole: bool

    @property
    def begun(self) -> bool:
        """Whether the attempt must have had a chance to say something."""
        return _has_begun(self.task)


def find_readings(
    view: View, choice: Choice, read: MutableMapping[str, int], reading: Collection[str], *, first: bool
) -> list[Reading]:
    """Return what to begin reading now; `read` has the newest attempt of each task that is done with.

    At the `first` look, what is there and not chosen is put among what is done with.
    """
    tasks = list(_candidates(view, choice))
    if not first:
        new = [task for task in tasks if task.id not in reading and _has_more(task, read)]
        return [Reading(task, _attempt(task), whole=True) for task in new[: max(0, TASKS_AT_ONCE_MAX - len(reading))]]
    live = [task for task in tasks if task.observed is not None and not task.ended]
    chosen = (live or [task for task in tasks if task.observed is not None])[:TASKS_AT_ONCE_MAX]
    known = {task.id for task in chosen}
    read.update((task.id, _attempt(task)) for task in tasks if task.id not in known)
    return [Reading(task, _attempt(task), whole=False) for task in chosen]


def is_over(view: View, choice: Choice, read: MutableMapping[str, int]) -> bool:
    """Return whether no more output is to come, nobody being read now."""
    tasks = list(_candidates(view, choice))
    if choice.task_id:
        return not tasks or all(task.ended and not _has_more(task, read) for task in tasks)
    workload = view.workloads.get((choice.namespace, choice.workload))
    if workload is None or workload.record.uid != choice.uid:
        return True
    if any(_has_more(task, read) for task in tasks):
        return False
    return summarise_workload(view, choice.namespace, choice.workload).state in _OVER


def _candidates(view: View, choice: Choice) -> Iterator[Task]:
    if choice.task_id:
        task = view.tasks.get(choice.task_id)
        if task is not None:
            yield task
        return
    for task_id in sorted(view.tasks_of(choice.namespace, choice.workload)):
        if view.tasks[task_id].desired.workload_uid == choice.uid:
            yield view.tasks[task_id]


def _has_more(task: Task, read: MutableMapping[str, int]) -> bool:
    """Whether an attempt has begun that was not read."""
    return _has_begun(task) and _attempt(task) > read.get(task.id, 0)


def _has_begun(task: Task) -> bool:
    return task.state in _BEGUN or task.ended


def _attempt(task: Task) -> int:
    return task.observed.attempt if task.observed is not None else 0
