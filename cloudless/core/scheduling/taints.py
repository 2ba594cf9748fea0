"""Which taints of a node a task does not put up with. The rules are those of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable

from cloudless.core.model import Placement, Taint, TaintEffect, Toleration, TolerationOperator
from cloudless.core.state.view import Node

FORBIDDING = frozenset({TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE})
DISCOURAGING = frozenset({TaintEffect.PREFER_NO_SCHEDULE})
EVICTING = frozenset({TaintEffect.NO_EXECUTE})


def find_intolerable(
    taints: Iterable[Taint], tolerations: Iterable[Toleration], effects: frozenset[TaintEffect]
) -> Taint | None:
    """Return the first taint with one of `effects` that no toleration covers, None if there is none."""
    for taint in taints:
        if taint.effect in effects and not any(tolerates(toleration, taint) for toleration in tolerations):
            return taint
    return None


def why_leave(node: Node, placement: Placement) -> str:
    """Return why a task that runs on a node has to leave it, "" if it may stay."""
    if node.spec.draining:
        return f"node {node.id} is being drained"
    if not node.spec.taints:
        return ""
    taint = find_intolerable(node.spec.taints, placement.tolerations, EVICTING)
    return f"node {node.id} has the taint {describe_taint(taint)}" if taint is not None else ""


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect is not None and toleration.effect is not taint.effect:
        return False
    if toleration.operator is TolerationOperator.EXISTS:
        return toleration.key in ("", taint.key)
    return (toleration.key, toleration.value) == (taint.key, taint.value)


def describe_taint(taint: Taint) -> str:
    """Return a taint as it is written: `key=value:EFFECT`."""
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect.value}"
