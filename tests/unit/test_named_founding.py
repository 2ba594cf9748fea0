"""Founders that have one name in DNS: one cluster, whatever each of them sees of the others and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from cloudless.adapters.member.founders import read_word, write_word
from cloudless.core.membership.founding import Founder, Founding, Standing, Verdict
from cloudless.core.membership.named_founding import NamedFounder, decide_named_founding
from cloudless.errors import DataLost


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
    """One founder that looks again and again; `view` is what DNS shows it for a while."""

    number: int
    word: tuple[str, ...] = ()
    token: str = ""
    cluster: tuple[str, ...] = ()
    refused: bool = False
    view: list[int] = field(default_factory=list)
    looking: dict[str, NamedFounder] | None = None
    asked: list[int] = field(default_factory=list)

    def answer(self) -> Founder:
        return founder(self.number, self.word, Standing.FORMING if self.cluster else Standing.FRESH, self.token)


class World:
    """Founders whose looks are cut into single questions that interleave: what one was told may be old when it decides.

    `forget_chance`: how often a node that looks again, or is started again, has lost its word.
    """

    def __init__(self, seed: int, forget_chance: float = 0.0) -> None:
        self.draw, self.forget_chance = Random(seed), forget_chance
        self.nodes = {number: Node(number) for number in range(1, self.draw.choice([3, 4, 5]) + 1)}

    def run(self, steps: int) -> set[tuple[str, ...]]:
        """Return the clusters that were founded."""
        for _ in range(steps):
            self._step(self.draw.choice(list(self.nodes.values())))
        return {node.cluster for node in self.nodes.values() if node.cluster}

    def _step(self, node: Node) -> None:
        if node.cluster:
            return
        if node.refused or self.draw.random() < 0.01:  # started again
            node.refused, node.looking = False, None
            self._may_forget(node)
        if node.looking is None:
            self._may_forget(node)
            if not node.view or self.draw.random() < 0.1:
                others = [number for number in self.nodes if number != node.number]
                node.view = self.draw.sample(others, 2)
            node.looking, node.asked = {}, [n for n in node.view if self.draw.random() < 0.9]
        elif node.asked:
            other = self.nodes[node.asked.pop()]
            node.looking[f"a{other.number}:1"] = NamedFounder(other.answer(), 3)
        else:
            node.word, decision = decide_named_founding(node.answer(), 3, node.word, node.looking)
            node.looking = None
            self._follow(node, decision)

    def _may_forget(self, node: Node) -> None:
        if self.draw.random() < self.forget_chance:
            node.word = ()

    def _follow(self, node: Node, decision: Founding) -> None:
        if decision.verdict is Verdict.FOUND:
            node.cluster = tuple(name for name, _ in decision.initial_cluster)
            node.token = decision.token
        node.refused = decision.verdict is Verdict.REFUSE


def test_however_dns_lies_no_two_clusters_are_founded_that_share_a_node() -> None:
    """With at most five nodes, any two sets of three share one."""
    founded = [World(seed).run(600) for seed in range(500)]
    assert max(map(len, founded)) == 1
    assert sum(map(len, founded)) > 50


def test_founders_that_forget_their_word_would_found_two_clusters() -> None:
    """The test above can fail."""
    assert max(len(World(seed, forget_chance=0.2).run(600)) for seed in range(500)) == 2


def test_the_word_outlives_the_process_and_damage_to_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "founders.json"
    assert read_word(path) == ()
    write_word(path, THREE)
    assert read_word(path) == THREE
    path.write_text("{")
    with pytest.raises(DataLost, match="cannot be understood"):
        read_word(path)
