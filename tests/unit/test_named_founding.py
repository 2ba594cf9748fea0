"""Founders that have one name in DNS: one cluster, whatever each of them sees of the others and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest

from cloudless.core.membership.founding import Founder, Founding, Standing, Verdict
from cloudless.core.membership.named_founding import NamedFounder, decide_named_founding


def founder(number: int, word: Iterable[str] = (), standing: Standing = Standing.FRESH, token: str = "") -> Founder:
    id = f"c{number}"
    return Founder(
        node_id=id, raft_address=f"a{number}:2", standing=standing, expects=tuple(word), token=token,
        instance_id=f"i-{id}",
    )  # fmt: skip


def others(*founders: Founder, expected: int = 3) -> dict[str, NamedFounder]:
    return {f"a{number}:1": NamedFounder(one, expected) for number, one in enumerate(founders)}


THREE = ("c1", "c2", "c3")


@pytest.mark.parametrize(
    ("answers", "word", "verdict", "reason"),
    [
        (others(founder(2)), (), Verdict.WAIT, "2 of 3 founders found so far: c1, c2"),
        (others(founder(2), founder(3), founder(4)), (), Verdict.WAIT, "4 founders answer where 3 are expected"),
        (others(founder(2), founder(3)), THREE, Verdict.WAIT, "c2, c3 has not found all founders yet"),
        (others(founder(2, THREE), founder(3, THREE)), THREE, Verdict.FOUND, ""),
        (others(founder(2, THREE), founder(3, THREE), founder(4)), THREE, Verdict.FOUND, ""),
        (others(founder(2, THREE), founder(4)), THREE, Verdict.WAIT, "waiting for c3 to answer"),
        (others(founder(2, THREE), founder(3, ("c1", "c3", "c4"))), THREE, Verdict.REFUSE, "c3 expects other founders"),
        (others(founder(2, THREE), founder(3, THREE, Standing.LOST)), THREE, Verdict.WAIT, "c3 had data and lost it"),
        (others(founder(2), founder(9, standing=Standing.MEMBER)), (), Verdict.JOIN, "exists already"),
        (others(founder(2), founder(3), expected=5), (), Verdict.REFUSE, "another number of founders"),
        (others(founder(1)), (), Verdict.WAIT, "1 of 3"),
    ],
)
def test_what_a_founder_does_with_the_answers(
    answers: dict[str, NamedFounder], word: tuple[str, ...], verdict: Verdict, reason: str
) -> None:
    said, decision = decide_named_founding(founder(1), 3, word, answers)
    assert decision.verdict is verdict
    assert reason in decision.reason
    assert said in ((), THREE)


def test_who_founds_nothing_is_not_counted() -> None:
    joiner = {"j:1": NamedFounder(founder(7), 0)}
    said, decision = decide_named_founding(founder(1), 3, (), others(founder(2), founder(3)) | joiner)
    assert said == THREE
    assert decision.verdict is Verdict.WAIT


def test_one_node_at_two_addresses_counts_once_and_two_nodes_with_one_id_are_refused() -> None:
    said, decision = decide_named_founding(founder(1), 3, (), others(founder(2), founder(2)))
    assert (said, decision.reason) == ((), "2 of 3 founders found so far: c1, c2")
    twin = Founder(node_id="c2", raft_address="z:2", standing=Standing.FRESH, instance_id="other")
    _, decision = decide_named_founding(founder(1), 3, (), others(founder(2), twin))
    assert decision.verdict is Verdict.REFUSE
    assert "share the node id c2" in decision.reason


@dataclass
class Node:
    """One founder that looks again and again; `sees` is what DNS shows it at this look."""

    number: int
    word: tuple[str, ...] = ()
    token: str = ""
    cluster: tuple[str, ...] = ()
    refused: bool = False
    looking: dict[str, NamedFounder] | None = None
    asked: list[int] = field(default_factory=list)

    def answer(self) -> Founder:
        return founder(self.number, self.word, Standing.FORMING if self.cluster else Standing.FRESH, self.token)


def test_however_dns_lies_no_two_founded_clusters_share_a_node_or_found_twice() -> None:
    """Looks are cut into single questions that interleave: what a node was told may be old when it decides."""
    founded_runs = 0
    for seed in range(400):
        draw = Random(seed)
        nodes = {number: Node(number) for number in range(1, draw.choice([3, 4, 5]) + 1)}
        for _ in range(250):
            node = draw.choice(list(nodes.values()))
            if node.cluster or node.refused:
                continue
            if node.looking is None:
                node.looking, node.asked = {}, draw.sample(list(nodes), draw.randint(1, len(nodes)))
            elif node.asked:
                other = nodes[node.asked.pop()]
                if other is not node and not other.refused:
                    node.looking[f"a{other.number}:1"] = NamedFounder(other.answer(), 3)
            else:
                node.word, decision = decide_named_founding(node.answer(), 3, node.word, node.looking)
                node.looking = None
                _follow(node, decision)
        clusters = {node.cluster for node in nodes.values() if node.cluster}
        founded_runs += bool(clusters)
        assert len(clusters) <= 1 or all(
            len(a) + len(b) == len({*a, *b}) for a in clusters for b in clusters if a != b
        ), (seed, clusters)
    assert founded_runs > 50


def _follow(node: Node, decision: Founding) -> None:
    if decision.verdict is Verdict.FOUND:
        node.cluster = tuple(name for name, _ in decision.initial_cluster)
        node.token = decision.token
    node.refused = decision.verdict is Verdict.REFUSE
