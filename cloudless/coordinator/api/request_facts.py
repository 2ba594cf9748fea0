"""What a request says that its permission depends on: for whom it speaks, which namespaces it concerns.

One line per method whose rule asks for it; a test sees that none is missing. A request too broken to tell names
nothing: its handler will say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloudless.adapters.yaml_documents import load_documents
from cloudless.core.identity.access import NO_FACTS, RequestFacts
from cloudless.core.identity.rules import PACKAGE
from cloudless.core.manifest import parse_manifests
from cloudless.core.state import View
from cloudless.errors import CloudlessError


def find_facts(method: str, request: Any, view: View | None) -> RequestFacts:
    """Return the facts of a request; for a stream, of one message of it. `view` None: before there is state."""
    find = _FACTS.get(method.removeprefix(PACKAGE))
    return find(request, view) if find is not None else NO_FACTS


def _member(request: Any, view: View | None) -> RequestFacts:
    return RequestFacts(speaks_for=(request.coordinator_id,))


def _joiner(request: Any, view: View | None) -> RequestFacts:
    return RequestFacts(speaks_for=(request.node_id,))


def _session(message: Any, view: View | None) -> RequestFacts:
    match message.WhichOneof("body"):
        case "hello":
            return RequestFacts(speaks_for=(message.hello.info.id,))
        case "reports":
            return RequestFacts(speaks_for=tuple(report.node_id for report in message.reports.reports))
        case _:
            return NO_FACTS


def _one(request: Any, view: View | None) -> RequestFacts:
    return RequestFacts(namespaces=(request.namespace or "default",))


def _list(request: Any, view: View | None) -> RequestFacts:
    return RequestFacts(namespaces=(request.namespace,) if request.namespace else None)


def _usage(request: Any, view: View | None) -> RequestFacts:
    return _one(request, view) if request.workload else _list(request, view)


def _manifest(request: Any, view: View | None) -> RequestFacts:
    try:
        return RequestFacts(namespaces=tuple(m.namespace for m in parse_manifests(load_documents(request.manifest))))
    except CloudlessError:
        return NO_FACTS


def _task(request: Any, view: View | None) -> RequestFacts:
    return RequestFacts(namespaces=_namespace_of(request.task_id, view))


def _exec(message: Any, view: View | None) -> RequestFacts:
    # What follows the start concerns nothing new.
    return _task(message.start, view) if message.WhichOneof("body") == "start" else NO_FACTS


def _logs(request: Any, view: View | None) -> RequestFacts:
    if request.task_id:
        return _task(request, view)
    return _one(request, view)


def _namespace_of(task_id: str, view: View | None) -> tuple[str, ...] | None:
    """Return the namespace of a task; none for a task that does not exist, any for one that cannot be looked up."""
    if view is None:
        return None
    task = view.tasks.get(task_id)
    return (task.desired.namespace,) if task is not None else ()


_FACTS: dict[str, Callable[[Any, View | None], RequestFacts]] = {
    "ClusterService/JoinRaftCluster": _joiner,
    "ClusterService/UpdateMember": _member,
    "AgentService/Session": _session,
    "PeerService/Link": _member,
    "WorkloadService/ApplyWorkload": _manifest,
    "WorkloadService/ListWorkloads": _list,
    "WorkloadService/GetWorkload": _one,
    "WorkloadService/ScaleWorkload": _one,
    "WorkloadService/DeleteWorkload": _one,
    "WorkloadService/ExplainWorkload": _one,
    "WorkloadService/PlanWorkload": _manifest,
    "WorkloadService/GetRollout": _one,
    "WorkloadService/UpdateRollout": _one,
    "WorkloadService/ListRevisions": _one,
    "WorkloadService/ReadLogs": _logs,
    "NameService/ListEndpoints": _one,
    "NameService/WatchEndpoints": _one,
    "TaskService/ListTasks": _list,
    "TaskService/GetTask": _task,
    "TaskService/ExecTask": _exec,
    "UsageService/ReadTaskUsage": _usage,
}
