"""Read where tasks may run, and where they would rather run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cloudless.core.fields import Fields, read_choice
from cloudless.core.manifest.names import LABEL_LENGTH_MAX, read_label_name, read_labels, read_name
from cloudless.core.model import (
    WEIGHT_MAX,
    NodeOperator,
    NodeTerm,
    Placement,
    SpreadTopology,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Topology,
    WorkloadTerm,
)

TERMS_MAX = 32
VALUES_MAX = 64

Term = TypeVar("Term", NodeTerm, WorkloadTerm)


def read_placement(fields: Fields) -> Placement:
    """Return the placement of a mapping; an empty one means anywhere."""
    affinity, anti_affinity = fields.child("affinity"), fields.child("antiAffinity")
    made = Placement(
        regions=fields.texts("regions", count_max=64, length_max=128),
        zones=fields.texts("zones", count_max=64, length_max=128),
        node_selector=read_labels(fields, "nodeSelector", count_max=32),
        spread_topology=fields.choice("spreadTopology", SpreadTopology.NONE),
        tolerations=tuple(
            _read_toleration(item)
            for item in fields.mappings("tolerations", "key, operator, value and effect", count_max=TERMS_MAX)
        ),
        node_affinity=_read_terms(affinity.child("nodes"), _read_node_term, "key, operator and values"),
        workload_affinity=_read_terms(affinity.child("workloads"), _read_workload_term, "workload or labels"),
        workload_anti_affinity=_read_terms(anti_affinity.child("workloads"), _read_workload_term, "workload or labels"),
    )
    affinity.finish()
    anti_affinity.finish()
    fields.finish()
    return made


def _read_terms(fields: Fields, read: Callable[[Fields, int], Term], wanted: str) -> tuple[Term, ...]:
    """Return the terms of `required`, then those of `preferred`; `read` makes one of a mapping and its weight."""
    terms: list[Term] = []
    for item in fields.mappings("required", wanted, count_max=TERMS_MAX):
        if item.has("weight"):
            item.take("weight")
            item.problems.add(item.at("weight"), "goes with preferred terms only: a required one always holds")
        terms.append(read(item, 0))
    for item in fields.mappings("preferred", f"weight, {wanted}", count_max=TERMS_MAX):
        terms.append(read(item, item.whole("weight", 1, least=1, most=WEIGHT_MAX)))
    fields.finish()
    return tuple(terms)


def _read_node_term(item: Fields, weight: int) -> NodeTerm:
    term = NodeTerm(
        key=read_label_name(item, "key", required=True),
        operator=item.choice("operator", NodeOperator.IN),
        values=item.texts("values", count_max=VALUES_MAX, length_max=LABEL_LENGTH_MAX),
        weight=weight,
    )
    item.finish()
    compares = term.operator in (NodeOperator.IN, NodeOperator.NOT_IN)
    if compares and not term.values:
        item.problems.add(item.at("values"), f"is required by {term.operator.value}")
    if not compares and term.values:
        item.problems.add(item.at("values"), f"does not go with {term.operator.value}")
    return term


def _read_workload_term(item: Fields, weight: int) -> WorkloadTerm:
    named = item.has("workload")
    term = WorkloadTerm(
        workload=read_name(item, "workload", "") if named else item.text("workload"),
        labels=read_labels(item, "labels", count_max=TERMS_MAX),
        topology=item.choice("topology", Topology.NODE),
        weight=weight,
    )
    item.finish()
    if named == bool(term.labels):
        item.problems.add(item.path, "needs either workload (a name) or labels, and only one of them")
    return term


def _read_toleration(item: Fields) -> Toleration:
    toleration = Toleration(
        key=read_label_name(item, "key", required=False),
        operator=item.choice("operator", TolerationOperator.EQUAL),
        value=item.text("value", length_max=LABEL_LENGTH_MAX),
        effect=_read_effect(item),
    )
    item.finish()
    if toleration.operator is TolerationOperator.EXISTS:
        if toleration.value:
            item.problems.add(item.at("value"), "does not go with EXISTS, which holds for every value")
    elif not toleration.key:
        item.problems.add(item.at("key"), "is missing; without a key the operator must be EXISTS, for every taint")
    return toleration


def _read_effect(item: Fields) -> TaintEffect | None:
    """Return the effect a toleration is for, None for every effect."""
    value = item.take("effect")
    return None if value is None else read_choice(value, TaintEffect.NO_SCHEDULE, item.at("effect"), item.problems)
