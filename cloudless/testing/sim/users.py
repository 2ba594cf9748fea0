"""People who write and read through any coordinator, retry under the same request id, and remember what they were told.

A user asks one coordinator, and after a timeout or a retryable error another one, as the command line does. Now and
then the same request is sent to two coordinators at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cloudless.errors import CloudlessError
from cloudless.rpc.v1 import common_pb2, node_pb2, workload_pb2
from cloudless.testing.sim.happenings import Answered, Asked, Read, Tell
from cloudless.testing.sim.loop import SimLoop
from cloudless.testing.sim.options import Rollouts

REPLICAS_MAX = 3
TRY_TIMEOUT_S = 2.0
RETRY_PAUSE_S = 0.2
TAINT = "sim"
OPERATION_TIMEOUT_S = 12.0
TWICE = 0.15
"""Share of writes that are sent to two coordinators at once."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a user wants: `kind` is apply, scale, delete, node, order or read. `marker` is in the applied record.

    `order`: PAUSE, RESUME, PROMOTE or UNDO. `rollout`: of an applied manifest, and `broken` if its tasks end at once.
    """

    kind: str
    name: str
    replicas: int = 0
    marker: str = ""
    cordoned: bool = False
    draining: bool = False
    order: str = ""
    rollout: tuple[tuple[str, object], ...] = ()
    broken: bool = False
    taint: str = ""


STRATEGIES: tuple[dict[str, object], ...] = (
    {},
    {},
    {"strategy": "RECREATE"},
    {"strategy": "CANARY", "canary": 1},
    {"strategy": "CANARY", "canary": 1, "autoPromote": True},
    {"strategy": "BLUE_GREEN", "autoPromote": True},
)
Call = Callable[[str, str, str, Any, float], Any]
"""(coordinator id, service, method, request, timeout_s): an awaitable answer."""


class Users:
    """All users together."""

    def __init__(
        self,
        loop: SimLoop,
        random: Random,
        call: Call,
        tell: Tell,
        *,
        coordinators: Callable[[], tuple[str, ...]],
        nodes: tuple[str, ...],
        names: tuple[str, ...],
        lost_after_s: int,
        rollouts: Rollouts | None = None,
        placing: bool = False,
        spreading: bool = False,
    ) -> None:
        self._loop, self._random, self._call, self._tell = loop, random, call, tell
        self._coordinators, self._nodes, self._names = coordinators, nodes, names
        self._lost_after_s, self._rollouts, self._placing = lost_after_s, rollouts, placing
        self._spreading = spreading
        self._count = 0
        self.known_revision = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self.ended: list[str] = []

    async def run(self, pause_s: float) -> None:
        """Begin operations until cancelled; those under way go on."""
        for name in self._names:
            self._begin(Operation("apply", name, self._random.randint(1, REPLICAS_MAX), self._next_marker()))
        while True:
            await asyncio.sleep(self._random.expovariate(1 / pause_s))
            self._begin(self._draw())

    async def settle(self) -> None:
        """Wait until all is answered, then open every node again, so that there is room for everything."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        for node_id in self._nodes:
            self._begin(Operation("node", node_id))
        while self._under_way:
            await asyncio.wait(self._under_way)
        for kind in ("apply", "order") if self._rollouts else ():
            for name in self._names:  # what comes up, and nobody has to promote; nothing is left paused
                replicas = self._random.randint(1, REPLICAS_MAX)
                marker = self._next_marker() if kind == "apply" else ""
                self._begin(Operation(kind, name, replicas, marker, order="" if marker else "RESUME"))
            while self._under_way:
                await asyncio.wait(self._under_way)

    def cancel(self) -> None:
        for task in sorted(self._under_way, key=hash):
            task.cancel()

    def _begin(self, operation: Operation) -> None:
        self._count += 1
        task: asyncio.Task[None] = self._loop.create_task(self._do(operation, f"req-{self._count}"))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _draw(self) -> Operation:
        random = self._random
        kinds: tuple[str, ...] = ("apply", "scale", "delete", "node", "read")
        weights: tuple[int, ...] = (3, 4, 1, 2, 3)
        if self._spreading:
            weights = (3, 4, 1, 6, 1)
        if self._rollouts is not None:
            kinds, weights = (*kinds, "order"), (3, 1, 1, 1, 1, self._rollouts.orders)
        kind = random.choices(kinds, weights)[0]
        name = random.choice(self._names)
        if self._rollouts is not None and kind in ("apply", "order"):
            return self._draw_rollout(kind, name, self._rollouts)
        match kind:
            case "apply":
                return Operation(kind, name, random.randint(1, REPLICAS_MAX), self._next_marker())
            case "scale":
                return Operation(kind, name, random.randint(0, REPLICAS_MAX))
            case "node":
                if self._placing and random.random() < 0.6:
                    effects = ("NO_SCHEDULE", "PREFER_NO_SCHEDULE", "NO_EXECUTE")
                    return Operation(kind, random.choice(self._nodes), taint=random.choice(effects))
                draining = random.random() < 0.4
                return Operation(
                    kind, random.choice(self._nodes), cordoned=draining or random.random() < 0.3, draining=draining
                )
        return Operation(kind, name)

    def _draw_rollout(self, kind: str, name: str, rollouts: Rollouts) -> Operation:
        random = self._random
        if kind == "order":
            return Operation(kind, name, order=random.choice(rollouts.of_orders))
        rollout = {
            **random.choice(STRATEGIES),
            "maxSurge": random.choice((1, 2)),
            "maxUnavailable": random.choice((0, 1)),
            "batchSize": random.choice((0, 1)),
            "pauseDuration": random.choice((0, 1)),
            "minReady": 1,
            "progressDeadline": rollouts.deadline_s,
            "autoRollback": random.random() < 0.8,
        }
        broken = random.random() < rollouts.broken
        replicas, marker = random.randint(1, REPLICAS_MAX), self._next_marker()
        return Operation(kind, name, replicas, marker, rollout=tuple(rollout.items()), broken=broken)

    def _next_marker(self) -> str:
        return f"m{self._count + 1}"

    async def _do(self, operation: Operation, request_id: str) -> None:
        ends_s = self._loop.now_s + OPERATION_TIMEOUT_S
        known = self.known_revision
        first = True
        self._tell(Asked(request_id, operation))
        while True:
            timeout_s = min(TRY_TIMEOUT_S, ends_s - self._loop.now_s)
            if timeout_s <= 0.05:
                return self._tell(Answered(request_id, operation, 0, "gave-up" if not first else "no-time"))
            target = self._random.choice(self._coordinators())
            if first and operation.kind != "read" and self._random.random() < TWICE:
                self._begin_twin(operation, request_id)
            first = False
            try:
                revision = await self._ask(operation, request_id, target, timeout_s)
            except TimeoutError:
                continue
            except CloudlessError as error:
                if not error.retryable:
                    return self._tell(Answered(request_id, operation, 0, error.code))
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            self.known_revision = max(self.known_revision, revision)
            if operation.kind == "read":
                return self._tell(Read(known, revision))
            return self._tell(Answered(request_id, operation, revision, ""))

    def _begin_twin(self, operation: Operation, request_id: str) -> None:
        async def ask() -> None:
            try:
                await self._ask(operation, request_id, self._random.choice(self._coordinators()), TRY_TIMEOUT_S)
            except (TimeoutError, CloudlessError):
                return

        task: asyncio.Task[None] = self._loop.create_task(ask())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _ask(self, operation: Operation, request_id: str, target: str, timeout_s: float) -> int:
        service, method, request = self._to_request(operation, request_id)
        answer = await self._call(target, service, method, request, timeout_s)
        return int(answer.header.revision)

    def _to_request(self, operation: Operation, request_id: str) -> tuple[str, str, Any]:
        options = common_pb2.WriteOptions(request_id=request_id)
        match operation.kind:
            case "apply":
                manifest = json.dumps(self._manifest(operation))
                return (
                    "workloads",
                    "ApplyWorkload",
                    workload_pb2.ApplyWorkloadRequest(manifest=manifest, options=options),
                )
            case "scale":
                request = workload_pb2.ScaleWorkloadRequest(
                    name=operation.name, replicas=operation.replicas, options=options
                )
                return "workloads", "ScaleWorkload", request
            case "delete":
                return (
                    "workloads",
                    "DeleteWorkload",
                    workload_pb2.DeleteWorkloadRequest(name=operation.name, options=options),
                )
            case "node":
                change = node_pb2.UpdateNodeRequest(
                    node_id=operation.name, cordoned=operation.cordoned, draining=operation.draining, options=options
                )
                if self._placing:
                    change.remove_taints.add(key=TAINT)
                if operation.taint:
                    change.set_taints.add(key=TAINT, effect=f"TAINT_EFFECT_{operation.taint}")  # type: ignore[arg-type]
                return "nodes", "UpdateNode", change
            case "order":
                action = workload_pb2.RolloutAction.Value(f"ROLLOUT_ACTION_{operation.order}")
                order = workload_pb2.UpdateRolloutRequest(name=operation.name, action=action, options=options)
                return "rollouts", "UpdateRollout", order
        return "workloads", "ListWorkloads", workload_pb2.ListWorkloadsRequest()

    def _manifest(self, operation: Operation) -> dict[str, Any]:
        number = int(operation.marker[1:])
        command, args = ["run" if number % 5 else "stubborn"], [operation.marker] if number % 3 else []
        rollout = {"maxSurge": 1, "maxUnavailable": number % 2, **dict(operation.rollout)}
        placed = _placing_of(number, operation.name, self._names) if self._placing else {}
        if self._spreading:
            spread = {"spreadTopology": "zone" if number % 4 == 0 else "node"}
            placed["placement"] = spread | placed.get("placement", {})
        labels = {"loud": "yes"} if self._placing and number % 7 == 0 else {}
        return {
            "apiVersion": "cloudless.io/v1",
            "kind": "Workload",
            "metadata": {"name": operation.name, "labels": labels, "annotations": {"marker": operation.marker}},
            "spec": {
                "replicas": operation.replicas,
                "command": ["exit", "1"] if operation.broken else command,
                "args": args,
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "stopGrace": "1s",
                "lostAfter": f"{self._lost_after_s}s",
                "rollout": rollout,
                **placed,
            },
        }


def _placing_of(number: int, name: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what the workload wants of nodes and of other tasks, and its priority."""
    other = names[(names.index(name) + 1) % len(names)]
    wishes: tuple[dict[str, Any], ...] = (
        {"spreadTopology": "node"},
        {"antiAffinity": {"workloads": {"required": [{"workload": name, "topology": "node"}]}}},
        {"affinity": {"workloads": {"required": [{"workload": other, "topology": "zone"}]}}},
        {"tolerations": [{"operator": "EXISTS"}]},
        {"antiAffinity": {"workloads": {"required": [{"labels": {"loud": "yes"}, "topology": "node"}]}}},
        {"antiAffinity": {"workloads": {"preferred": [{"workload": other, "topology": "zone"}]}}},
    )
    return {"placement": wishes[number % len(wishes)], "priority": number % 3}
