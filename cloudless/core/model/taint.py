"""Taints keep tasks away from a node; tolerations let some in again. The rules are those of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving


class TaintEffect(Enum):
    """What a taint does to a task that does not tolerate it.

    NO_SCHEDULE         it is not placed there; one that runs there stays
    PREFER_NO_SCHEDULE  it is placed there only if no other node fits
    NO_EXECUTE          it is not placed there, and one that runs there has to leave
    """

    NO_SCHEDULE = "NO_SCHEDULE"
    PREFER_NO_SCHEDULE = "PREFER_NO_SCHEDULE"
    NO_EXECUTE = "NO_EXECUTE"


class TolerationOperator(Enum):
    """EQUAL: key and value are the taint's. EXISTS: the key is, whatever the value."""

    EQUAL = "EQUAL"
    EXISTS = "EXISTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint(Evolving):
    """A mark on a node. A node has at most one for each key and effect."""

    key: str
    effect: TaintEffect
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration(Evolving):
    """Which taints a task puts up with.

    An empty `key` (with EXISTS only) stands for every key; `effect` None for every effect.
    """

    key: str = ""
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: str = ""
    effect: TaintEffect | None = None
