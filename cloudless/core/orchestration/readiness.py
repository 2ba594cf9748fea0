"""When a task counts as available: it runs, it is ready, and has been so for `min_ready_s`.

Since when it is ready the agent says by its own clock. A time that cannot be true (before the task was created, or in
the future) is replaced by the time the leader created the task, and what then still makes no sense counts as long
enough: a wrong clock on a node can shorten or prolong the wait by what it is wrong, but never block a rollout.
"""

from __future__ import annotations

from cloudless.core.model import TaskState
from cloudless.core.state.view import Task


def available_in_s(task: Task, min_ready_s: float, now_ms: int) -> float | None:
    """Return the seconds until the task is available if nothing changes, 0 if it is; None while it is not ready."""
    seen = task.observed
    if seen is None or seen.state is not TaskState.RUNNING or not seen.ready:
        return None
    if min_ready_s <= 0:
        return 0.0
    created_ms = task.desired.created_at_ms
    since_ms = max(seen.ready_since_ms, seen.started_at_ms)
    if not created_ms <= since_ms <= now_ms:
        since_ms = created_ms
    remaining_s = min_ready_s - (now_ms - since_ms) / 1000
    return remaining_s if 0 < remaining_s <= min_ready_s else 0.0
