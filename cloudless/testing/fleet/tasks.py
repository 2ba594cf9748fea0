"""The tasks of a simulated agent: one that is assigned runs at once, one that is to stop has stopped at once.

What a coordinator sees of them is what it sees of a real agent whose executor takes no time: one report for each
change, with a sequence that only grows, and nothing more of a task that is no longer listed.
"""

from __future__ import annotations

from cloudless.agent.reports import ReportBook
from cloudless.core.model import Desired, TaskDesired, TaskObserved, TaskState
from cloudless.ports import Clock

HOST = "127.0.0.1"
PORT_LOWEST, PORT_COUNT = 20_000, 12_000


class LightTasks:
    """Follows assignments like `agent.tasks.TaskRunner`. `started_total` counts tasks begun, never one twice."""

    def __init__(self, node_id: str, reports: ReportBook, clock: Clock) -> None:
        self._node_id, self._reports, self._clock = node_id, reports, clock
        self._states: dict[str, TaskState] = {}
        self._sequence = clock.wall_ms()
        self._port = 0
        self.running = 0
        self.started_total = 0

    @property
    def known(self) -> int:
        return len(self._states)

    @property
    def acknowledged(self) -> int:
        """Return how many tasks' newest report is known to be stored."""
        return len(self._states) - self._reports.pending_count

    def assign(self, desired: TaskDesired) -> None:
        known = self._states.get(desired.id)
        if desired.desired is Desired.RUNNING:
            if known is None:
                self.started_total += 1
                self._report(desired, TaskState.RUNNING)
        elif known is not TaskState.STOPPED:
            self._report(desired, TaskState.STOPPED)

    def unlist(self, task_id: str) -> None:
        state = self._states.pop(task_id, None)
        if state is not None:
            self.running -= state is TaskState.RUNNING
            self._reports.forget(task_id)

    def unlist_others(self, listed: set[str]) -> None:
        for task_id in sorted(self._states.keys() - listed):
            self.unlist(task_id)

    def _report(self, desired: TaskDesired, state: TaskState) -> None:
        self.running += (state is TaskState.RUNNING) - (self._states.get(desired.id) is TaskState.RUNNING)
        self._states[desired.id] = state
        self._sequence += 1
        ports = {port.name: port.host_port or self._next_port() for port in desired.spec.ports}
        self._reports.put(
            TaskObserved(
                task_id=desired.id, node_id=self._node_id, sequence=self._sequence, state=state, attempt=1, pid=1,
                host=HOST, ports=ports, started_at_ms=self._clock.wall_ms(), ready=state is TaskState.RUNNING,
            )
        )  # fmt: skip

    def _next_port(self) -> int:
        self._port = (self._port + 1) % PORT_COUNT
        return PORT_LOWEST + self._port
