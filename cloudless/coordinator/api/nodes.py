"""NodeService: list, get, and what a person wants of a node (cordon, drain, labels, taints)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cloudless.coordinator.api.access import (
    Access,
    Decided,
    check_revision,
    content_of,
    not_found,
    paginate,
    read_selector,
    with_puts,
)
from cloudless.coordinator.api.taints import change_taints, check_taints
from cloudless.core import keys
from cloudless.core.model import NodeSpec
from cloudless.core.orchestration import summarise_node
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.scheduling import describe_taint
from cloudless.core.scheduling.site import MEASURES, millionths
from cloudless.core.state import Node, View
from cloudless.errors import Conflict, InvalidSpec, Problem
from cloudless.rpc import codec
from cloudless.rpc.v1 import node_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

LABELS_MAX = 64
TAINTS_MAX = 32
LABEL_LENGTH_MAX = 253
DRAIN_MAX_S = 30 * 86_400.0


class Nodes:
    """NodeService. `silence_s` returns the seconds since a node was last heard of, None if it never was."""

    def __init__(self, access: Access, silence_s: Callable[[str], float | None]) -> None:
        self._access, self._silence_s = access, silence_s

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        selector = read_selector(request.selector)
        view = await self._access.settle(request.read, context)
        names = [node_id for node_id in view.nodes if self._matches(view, node_id, selector)]
        page, token = paginate(names, request.page_token, request.limit)
        return pb.ListNodesResponse(
            header=self._access.header(), nodes=[self._to_node(view, node_id) for node_id in page], next_token=token
        )

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        view = await self._access.settle(request.read, context)
        find_node(view, request.node_id)
        return pb.GetNodeResponse(header=self._access.header(), node=self._to_node(view, request.node_id))

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Any) -> pb.UpdateNodeResponse:
        check_node_request(request)

        def decide(view: View) -> Decided:
            node = find_node(view, request.node_id)
            check_revision(_revision(node), request.options, f"node {node.id}")
            spec, what = _new_spec(node.spec, request, self._access.clock.wall_ms())
            if len(spec.labels) > LABELS_MAX:
                raise InvalidSpec([Problem("set_labels", f"node {node.id} would have more than {LABELS_MAX} labels")])
            if len(spec.taints) > TAINTS_MAX:
                raise InvalidSpec([Problem("set_taints", f"node {node.id} would have more than {TAINTS_MAX} taints")])
            if spec == node.spec and node.spec_revision:
                return Decided(None, {})
            key = keys.node_spec(node.id)
            change = Change(
                puts=(PutRecord(key, spec),),
                preconditions=(
                    Precondition(key, node.spec_revision),
                    Precondition(keys.node_info(node.id), node.info_revision),
                ),
                reason=what,
            )
            return Decided(with_puts(change, self._access.event("NodeUpdated", f"node/{node.id}", what)), {})

        content = _content(request)
        # Cordoning and draining replace a small record: who mends a full cluster must be able to.
        written = await self._access.write(request.options, content, decide, context, makes_room=True)
        return pb.UpdateNodeResponse(
            header=self._access.header(written.revision), node=self._to_node(self._access.view, request.node_id)
        )

    async def RemoveNode(self, request: pb.RemoveNodeRequest, context: Any) -> pb.RemoveNodeResponse:
        def decide(view: View) -> Decided:
            node = find_node(view, request.node_id)
            check_revision(_revision(node), request.options, f"node {node.id}")
            if node.reachable:
                raise Conflict(
                    f"the agent of node {node.id} is reachable: it would register again",
                    hint="drain the node, stop its agent, then remove it",
                )
            revisions = (
                (keys.node_spec(node.id), node.spec_revision),
                (keys.node_info(node.id), node.info_revision),
                (keys.node_status(node.id), node.status_revision),
            )
            what = f"removed; {len(view.tasks_on(node.id))} task records were on it"
            change = Change(
                deletes=tuple(key for key, revision in revisions if revision),
                preconditions=tuple(Precondition(key, revision) for key, revision in revisions),
                reason=f"remove node {node.id}",
            )
            return Decided(with_puts(change, self._access.event("NodeRemoved", f"node/{node.id}", what)), {})

        written = await self._access.write(request.options, content_of(request), decide, context, makes_room=True)
        return pb.RemoveNodeResponse(header=self._access.header(written.revision))

    def _to_node(self, view: View, node_id: str) -> pb.Node:
        node = view.nodes[node_id]
        summary = summarise_node(view, node_id)
        silence_s = self._silence_s(node_id)
        return pb.Node(
            id=node_id,
            spec=codec.to_message(node.spec, objects_pb2.NodeSpec),
            info=codec.to_message(node.info, objects_pb2.NodeInfo) if node.info else None,
            status=codec.to_message(node.status, objects_pb2.NodeStatus) if node.status else None,
            phase=summary.phase.value,
            tasks_live=summary.live_tasks,
            reserved=codec.to_message(summary.reserved, objects_pb2.Resources),
            free=codec.to_message(summary.free, objects_pb2.Resources),
            revision=_revision(node),
            last_heard_s=-1.0 if silence_s is None else silence_s,
        )

    def _matches(self, view: View, node_id: str, selector: Mapping[str, str]) -> bool:
        if not selector:
            return True
        node = view.nodes[node_id]
        known = {"id": node_id, **node.labels}
        if node.info is not None:
            known |= {"zone": node.info.zone, "region": node.info.region, "type": node.info.type}
        if "phase" in selector:
            known["phase"] = summarise_node(view, node_id).phase.value
        return all(known.get(key) == value for key, value in selector.items())


def find_node(view: View, node_id: str) -> Node:
    """Return a node. Raises NotFound, InvalidSpec for a missing id."""
    if not node_id:
        raise InvalidSpec([Problem("node_id", "must be given")])
    node = view.nodes.get(node_id)
    if node is None:
        raise not_found("node", node_id)
    return node


def _new_spec(spec: NodeSpec, request: pb.UpdateNodeRequest, now_ms: int) -> tuple[NodeSpec, str]:
    """Return the wanted spec and what changes, in words."""
    words = []
    if request.HasField("draining"):
        until_ms = now_ms + int(request.drain_deadline_s * 1000) if request.drain_deadline_s else 0
        cordoned = spec.cordoned or request.draining
        spec = replace(spec, draining=request.draining, cordoned=cordoned, drain_until_ms=until_ms)
        within = f" within {request.drain_deadline_s:g} s" if until_ms else ""
        words.append(f"drain{within}" if request.draining else "stop draining")
    if request.HasField("cordoned"):
        spec = replace(spec, cordoned=request.cordoned)
        words.append("cordon" if request.cordoned else "uncordon")
    if request.set_labels or request.remove_labels:
        labels = {key: value for key, value in spec.labels.items() if key not in request.remove_labels}
        spec = replace(spec, labels=labels | dict(request.set_labels))
        words.append("label")
    if request.set_taints or request.remove_taints:
        spec = replace(spec, taints=change_taints(spec.taints, request.set_taints, request.remove_taints))
        words.append("taint " + (", ".join(map(describe_taint, spec.taints)) or "no more"))
    return spec, ", ".join(words) or "nothing"


def check_node_request(request: pb.UpdateNodeRequest) -> None:
    """Raise InvalidSpec with every fault of a request."""
    problems = check_taints(request.set_taints, request.remove_taints, TAINTS_MAX)
    if len(request.set_labels) > LABELS_MAX:
        problems.append(Problem("set_labels", f"at most {LABELS_MAX} labels"))
    if len(request.remove_labels) > LABELS_MAX:
        problems.append(Problem("remove_labels", f"at most {LABELS_MAX} labels"))
    if problems:
        raise InvalidSpec(problems)  # nobody wants to read of each of ten thousand
    for key, value in request.set_labels.items():
        if not key or max(len(key), len(value)) > LABEL_LENGTH_MAX:
            problems.append(
                Problem(f"set_labels[{key[:40]!r}]", f"key and value must have 1 to {LABEL_LENGTH_MAX} characters")
            )
        elif key in MEASURES and millionths(value, MEASURES[key]) is None:
            problems.append(Problem(f"set_labels[{key!r}]", f"must be a number from 0 to {MEASURES[key]:g}"))
    if not 0 <= request.drain_deadline_s <= DRAIN_MAX_S:  # also refuses NaN
        problems.append(Problem("drain_deadline_s", f"must be seconds, 0 (none) to {DRAIN_MAX_S:.0f}"))
    elif request.drain_deadline_s and not request.draining:
        problems.append(Problem("drain_deadline_s", "goes with draining only"))
    if request.HasField("cordoned") and not request.cordoned and request.draining:
        problems.append(Problem("cordoned", "a draining node is cordoned; uncordon it when it need not drain any more"))
    if problems:
        raise InvalidSpec(problems)


def _content(request: pb.UpdateNodeRequest) -> bytes:
    """Return what the request asks for, without its id."""
    bare = pb.UpdateNodeRequest()
    bare.CopyFrom(request)
    bare.options.request_id = ""
    content: bytes = bare.SerializeToString(deterministic=True)
    return content


def _revision(node: Node) -> int:
    return max(node.spec_revision, node.info_revision, node.status_revision)
