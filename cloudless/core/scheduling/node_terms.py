"""What a node's labels must be like: the terms of node affinity."""

from __future__ import annotations

from cloudless.core.model import NodeOperator, NodeTerm


def holds(term: NodeTerm, value: str | None) -> bool:
    """Return whether a node with this value of the term's label satisfies it; None: it does not have the label."""
    match term.operator:
        case NodeOperator.IN:
            return value in term.values
        case NodeOperator.NOT_IN:
            return value not in term.values
        case NodeOperator.EXISTS:
            return value is not None
        case NodeOperator.DOES_NOT_EXIST:
            return value is None


def describe_term(term: NodeTerm) -> str:
    """Return a term as a person would write it: `disk IN ssd,nvme`."""
    values = f" {','.join(term.values)}" if term.values else ""
    return f"{term.key} {term.operator.value}{values}"
