"""TaskService: the tasks of workloads, as decided and as reported."""

from __future__ import annotations

from typing import Any

from cloudless.coordinator.api.access import Access, not_found, paginate
from cloudless.core.orchestration import task_state_word
from cloudless.core.state import Task, View
from cloudless.errors import InvalidSpec, Problem
from cloudless.rpc import codec
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1 import workload_pb2 as pb


class Tasks:
    """TaskService."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        view = await self._access.settle(request.read, context)
        names = [task_id for task_id in _candidates(view, request) if _matches(view.tasks[task_id], request)]
        page, token = paginate(names, request.page_token, request.limit)
        return pb.ListTasksResponse(
            header=self._access.header(), tasks=[to_task(view, view.tasks[name]) for name in page], next_token=token
        )

    async def GetTask(self, request: pb.GetTaskRequest, context: Any) -> pb.GetTaskResponse:
        if not request.task_id:
            raise InvalidSpec([Problem("task_id", "must be given")])
        view = await self._access.settle(request.read, context)
        task = view.tasks.get(request.task_id)
        if task is None:
            raise not_found("task", request.task_id)
        return pb.GetTaskResponse(header=self._access.header(), task=to_task(view, task))


def to_task(view: View, task: Task) -> pb.Task:
    """Return a task as a person sees it."""
    return pb.Task(
        desired=codec.to_message(task.desired, objects_pb2.TaskDesired),
        observed=codec.to_message(task.observed, objects_pb2.TaskObserved) if task.observed else None,
        state=task_state_word(view, task),
        revision=max(task.desired_revision, task.observed_revision),
    )


def _candidates(view: View, request: pb.ListTasksRequest) -> list[str]:
    if request.workload:
        return list(view.tasks_of(request.namespace or "default", request.workload))
    return list(view.tasks_on(request.node_id)) if request.node_id else list(view.tasks)


def _matches(task: Task, request: pb.ListTasksRequest) -> bool:
    return (
        (request.all or not task.ended)
        and request.namespace in ("", task.desired.namespace)
        and request.node_id in ("", task.desired.node_id)
    )
