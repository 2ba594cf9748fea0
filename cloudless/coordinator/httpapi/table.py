"""Which path is which method of which service: the only place where the HTTP API is said.

::

    POST /v1/<Service>/<Method>     every unary method that people may call, its request as the body
    TABLE                           the paths of resources

Of a resource's request, a `{name}` in the path is the field of that name, and `fixed` are the fields that the path
itself stands for. The others are in the query (GET, DELETE, and where the body is the one field `raw`) or in the body,
a JSON object. `ReadOptions` come in the query, `WriteOptions` in headers: see `request`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from cloudless.core.identity.rules import RULES, Rule

BASE = "/v1"
_ACTION = "ROLLOUT_ACTION_"


@dataclass(frozen=True, slots=True)
class Path:
    """One line of the table.

    `revision`: where the answer has the revision of its object, which is told as ETag. `resume`: the field of a watch
    that takes the revision to go on from, and how many after the last one told (`Last-Event-ID`).
    """

    verb: str
    path: str
    method: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    raw: str = ""
    revision: str = ""
    resume: tuple[str, int] = ("", 0)


_W = "/workloads/{namespace}/{name}"
_N = "/nodes/{node_id}"

# verb    path below /v1                                       method                               what else
TABLE: tuple[Path, ...] = (
    Path("GET", "/whoami", "IdentityService/WhoAmI"),
    Path("GET", "/cluster/status", "ClusterService/GetStatus"),
    Path("GET", "/cluster/digest", "ClusterService/GetDigest"),
    Path("GET", "/cluster/formation", "ClusterService/GetFormation"),
    Path("GET", "/cluster/autopilot", "ClusterService/GetAutopilot", revision="revision"),
    Path("PATCH", "/cluster/autopilot", "ClusterService/SetAutopilot", revision="revision"),
    Path("GET", "/cluster/scheduler", "ClusterService/GetScheduler", revision="revision"),
    Path("PATCH", "/cluster/scheduler", "ClusterService/SetScheduler", revision="revision"),
    Path("POST", "/cluster/transfer-leader", "ClusterService/TransferLeader"),
    Path("POST", "/cluster/finish-upgrade", "ClusterService/FinishUpgrade"),
    Path("POST", "/cluster/leave", "ClusterService/LeaveCluster"),
    Path("POST", "/join", "ClusterService/JoinRaftCluster"),
    Path("GET", "/coordinator", "MaintenanceService/InspectCoordinator"),
    Path("POST", "/store/make-room", "MaintenanceService/MakeRoom"),
    Path("GET", "/members", "ClusterService/ListMembers"),
    Path("PATCH", "/members/{coordinator_id}", "ClusterService/UpdateMember"),
    Path("DELETE", "/members/{coordinator_id}", "ClusterService/RemoveMember"),
    Path("POST", "/members/{coordinator_id}/promote", "ClusterService/PromoteMember"),
    Path("POST", "/members/{coordinator_id}/replace", "ClusterService/ReplaceMember"),
    Path("GET", "/nodes", "NodeService/ListNodes"),
    Path("GET", _N, "NodeService/GetNode", revision="node.revision"),
    Path("PATCH", _N, "NodeService/UpdateNode", revision="node.revision"),
    Path("DELETE", _N, "NodeService/RemoveNode"),
    Path("POST", f"{_N}/cordon", "NodeService/UpdateNode", {"cordoned": True}, revision="node.revision"),
    Path("POST", f"{_N}/uncordon", "NodeService/UpdateNode", {"cordoned": False, "draining": False},
         revision="node.revision"),
    Path("POST", f"{_N}/drain", "NodeService/UpdateNode", {"draining": True}, revision="node.revision"),
    Path("GET", "/usage/nodes", "UsageService/ReadNodeUsage"),
    Path("GET", "/usage/tasks", "UsageService/ReadTaskUsage"),
    Path("GET", "/workloads", "WorkloadService/ListWorkloads"),
    Path("PUT", "/workloads", "WorkloadService/ApplyWorkload", raw="manifest"),
    Path("POST", "/plan", "WorkloadService/PlanWorkload", raw="manifest"),
    Path("GET", _W, "WorkloadService/GetWorkload", revision="workload.revision"),
    Path("DELETE", _W, "WorkloadService/DeleteWorkload"),
    Path("PUT", f"{_W}/scale", "WorkloadService/ScaleWorkload", revision="workload.revision"),
    Path("GET", f"{_W}/explain", "WorkloadService/ExplainWorkload"),
    Path("GET", f"{_W}/rollout", "WorkloadService/GetRollout"),
    Path("POST", f"{_W}/rollout/pause", "WorkloadService/UpdateRollout", {"action": f"{_ACTION}PAUSE"}),
    Path("POST", f"{_W}/rollout/resume", "WorkloadService/UpdateRollout", {"action": f"{_ACTION}RESUME"}),
    Path("POST", f"{_W}/rollout/promote", "WorkloadService/UpdateRollout", {"action": f"{_ACTION}PROMOTE"}),
    Path("POST", f"{_W}/rollout/undo", "WorkloadService/UpdateRollout", {"action": f"{_ACTION}UNDO"}),
    Path("GET", f"{_W}/revisions", "WorkloadService/ListRevisions"),
    Path("GET", "/workloads/{namespace}/{workload}/endpoints", "NameService/ListEndpoints"),
    Path("GET", "/workloads/{namespace}/{workload}/endpoints/watch", "NameService/WatchEndpoints",
         resume=("min_revision", 0)),
    Path("GET", "/workloads/{namespace}/{workload}/logs", "WorkloadService/ReadLogs"),
    Path("GET", "/tasks", "TaskService/ListTasks"),
    Path("GET", "/tasks/{task_id}", "TaskService/GetTask", revision="task.revision"),
    Path("GET", "/tasks/{task_id}/logs", "WorkloadService/ReadLogs"),
    Path("GET", "/events", "EventService/ListEvents"),
    Path("GET", "/watch", "EventService/Watch", resume=("from_revision", 1)),
    Path("GET", "/tokens", "IdentityService/ListTokens"),
    Path("POST", "/tokens", "IdentityService/CreateToken"),
    Path("DELETE", "/tokens/{id}", "IdentityService/RevokeToken"),
    Path("GET", "/identities", "IdentityService/ListIdentities"),
    Path("POST", "/identities/{kind}/{name}/revoke", "IdentityService/RevokeIdentity"),
    Path("GET", "/ca", "IdentityService/GetCa"),
    Path("POST", "/ca/rotate", "IdentityService/RotateCa"),
    Path("GET", "/ca/cluster-key", "IdentityService/GetClusterKey"),
    Path("POST", "/ca/cluster-key/rotate", "IdentityService/RotateClusterKey"),
    Path("POST", "/enrol", "IdentityService/Enrol"),
    Path("POST", "/reenrol", "IdentityService/Reenrol"),
    Path("POST", "/renew", "IdentityService/Renew"),
    Path("GET", "/backups", "BackupService/ListBackups"),
    Path("POST", "/backups", "BackupService/StoreBackup"),
    Path("POST", "/backups/prune", "BackupService/PruneBackups"),
    Path("GET", "/backup-schedule", "BackupService/GetBackupSchedule"),
    Path("PUT", "/backup-schedule", "BackupService/SetBackupSchedule"),
)  # fmt: skip

CONDITIONAL = frozenset(
    {
        "SetAutopilot", "SetScheduler", "UpdateNode", "RemoveNode", "ApplyWorkload", "ScaleWorkload", "DeleteWorkload",
        "UpdateRollout",
    }
)  # fmt: skip
"""Methods that look at `options.ifRevision`: elsewhere If-Match would be a promise that nobody keeps."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path as it is served. `service` is the key that `resolve` finds the handler by; `path` begins with /v1."""

    verb: str
    path: str
    service: str
    method: MethodDescriptor
    line: Path
    segments: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The method as rules and metrics call it: `package.Service/Method`."""
        return f"{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def rule(self) -> Rule:
        return RULES[self.name]

    @property
    def streams(self) -> bool:
        return bool(self.method.server_streaming)

    @property
    def in_query(self) -> bool:
        """Whether fields that the path does not say are in the query."""
        return self.verb in ("GET", "DELETE") or bool(self.line.raw)

    @property
    def takes_id(self) -> bool:
        """Whether it may be sent again under the same Idempotency-Key."""
        return "options" in self.method.input_type.fields_by_name

    @property
    def conditional(self) -> bool:
        """Whether it takes If-Match."""
        return self.method.name in CONDITIONAL

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(segment[1:-1] for segment in self.segments if segment.startswith("{"))


def build_routes(services: Mapping[str, ServiceDescriptor]) -> tuple[Route, ...]:
    """Return every path of services by their keys. Raises KeyError for a line that names no method of theirs."""
    methods = {f"{s.name}/{m.name}": (key, m) for key, s in services.items() for m in s.methods}
    lines = [dataclasses.replace(line, path=BASE + line.path) for line in TABLE]
    known = {line.method for line in TABLE}
    lines += [_line_of(name) for name, (_, method) in methods.items() if _is_public(method, known)]
    return tuple(_build(line, *methods[line.method]) for line in lines)


def _line_of(name: str) -> Path:
    return Path("POST", f"{BASE}/{name}", name)


def _build(line: Path, service: str, method: MethodDescriptor) -> Route:
    return Route(line.verb, line.path, service, method, line, tuple(line.path.split("/")[1:]))


def _is_public(method: MethodDescriptor, known: set[str]) -> bool:
    """Return whether people may call it, in one question and one answer."""
    if method.client_streaming or method.server_streaming:
        return False
    name = f"{method.containing_service.name}/{method.name}"
    rule = RULES[f"{method.containing_service.full_name}/{method.name}"]
    return name in known or rule.people is not None or rule.anyone


class Router:
    """Finds a route by verb and path. A word in the table goes before a variable at its place."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._of_length: dict[int, list[Route]] = {}
        for route in routes:
            self._of_length.setdefault(len(route.segments), []).append(route)

    def find(self, verb: str, segments: tuple[str, ...]) -> tuple[Route | None, tuple[str, ...]]:
        """Return the route, None if there is none, and the verbs that this path has."""
        fitting = [route for route in self._of_length.get(len(segments), ()) if _fits(route.segments, segments)]
        best = max((_words(route) for route in fitting), default=())
        there = {route.verb: route for route in fitting if _words(route) == best}
        get = there.get("GET")
        if get is not None and not get.streams:
            there["HEAD"] = get
        return there.get(verb), tuple(sorted(there))


def _fits(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return all(p == s or (p.startswith("{") and s) for p, s in zip(pattern, segments, strict=True))


def _words(route: Route) -> tuple[bool, ...]:
    return tuple(not segment.startswith("{") for segment in route.segments)
