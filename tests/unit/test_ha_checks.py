"""The test of the HA stack is put to the test: a stack that behaves passes, one planted fault fails its check."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.checks import CHECKS, NODES, REMOVAL, Trial
from tests.cluster.report import Outcome, Result, has_passed, to_json, to_junit, to_text, write_report
from tests.cluster.run import run_checks
from tests.cluster.stack import Container, EtcdView, NodeSeen, Sight, TaskSeen, Unreachable
from tests.unit.ha_stack import GoodStack


def judge(stack: GoodStack) -> list[Result]:
    results: list[Result] = []
    run_checks(Trial(stack, stack.clock, stack.pause), [*CHECKS, REMOVAL], results, tell=lambda line: None)
    return results


def test_a_stack_that_behaves_passes_every_check() -> None:
    results = judge(GoodStack())
    assert has_passed(results), to_text(results)
    assert len(results) == len(CHECKS) + 1


# --- planted faults -----------------------------------------------------------------------------


class LeftOver(GoodStack):
    def clear(self) -> None:
        self.deployed = True


class NeverHealthy(GoodStack):
    def containers(self) -> Mapping[str, Container]:
        found = dict(super().containers())
        return {**found, "agent-2": Container("running", "starting")} if found else {}


class EnrolmentFailed(GoodStack):
    def containers(self) -> Mapping[str, Container]:
        found = dict(super().containers())
        return {**found, "enrol": Container("exited", "", 3)} if found else {}


class ContainerMissing(GoodStack):
    def containers(self) -> Mapping[str, Container]:
        return {name: it for name, it in super().containers().items() if name != "coordinator-3"}


class NobodyMaySignIn(GoodStack):
    def sign_in(self) -> None:
        raise Unreachable("the token was refused")


class OwnCluster(GoodStack):
    def sight(self, coordinator: str) -> Sight:
        seen = super().sight(coordinator)
        return replace(seen, cluster_id="another") if coordinator == "coordinator-3" else seen


class OwnVoters(GoodStack):
    def voters(self, coordinator: str) -> frozenset[str]:
        return frozenset({coordinator})


class WrongDoor(GoodStack):
    def sight(self, coordinator: str) -> Sight:
        return replace(super().sight(coordinator), coordinator_id="coordinator-1")


class OwnEtcd(GoodStack):
    """`cloudless` says one cluster of all three, etcd itself knows better."""

    def etcd_view(self, coordinator: str) -> EtcdView:
        return EtcdView(coordinator, frozenset(self.coordinators))


class LonelyEtcd(GoodStack):
    def etcd_view(self, coordinator: str) -> EtcdView:
        return EtcdView("abc", frozenset({coordinator}))


class EternalLearner(GoodStack):
    def etcd_view(self, coordinator: str) -> EtcdView:
        return EtcdView("abc", frozenset(self.coordinators[:2]), frozenset({"coordinator-3"}))


class TwoLeaders(GoodStack):
    def leads(self, coordinator: str, *, inside: bool = False) -> bool:
        return super().leads(coordinator, inside=inside) or coordinator == "coordinator-3"


class NoLeaderShown(GoodStack):
    """The metric that the earlier project never set."""

    def leads(self, coordinator: str, *, inside: bool = False) -> bool:
        return False


class MetricMissing(GoodStack):
    def metrics(self, coordinator: str, *, inside: bool = False) -> Mapping[str, float]:
        told = super().metrics(coordinator, inside=inside)
        return {name: value for name, value in told.items() if name != "raft_commit_index"}


class EveryRaftLeads(GoodStack):
    def metrics(self, coordinator: str, *, inside: bool = False) -> Mapping[str, float]:
        return {**super().metrics(coordinator, inside=inside), "raft_state": 2.0}


class NothingApplied(GoodStack):
    def metrics(self, coordinator: str, *, inside: bool = False) -> Mapping[str, float]:
        return {**super().metrics(coordinator, inside=inside), "raft_applied_index": 0.0}


class AnotherLeaderNamed(GoodStack):
    def sight(self, coordinator: str) -> Sight:
        return replace(super().sight(coordinator), leader_id="coordinator-1")


class NotReplicated(GoodStack):
    def read(self, coordinator: str) -> Mapping[str, int]:
        kept = super().read(coordinator)
        return {name: n for name, n in kept.items() if name.endswith(coordinator)}


class StatesDiffer(GoodStack):
    def digests_differ(self) -> str:
        return "digests differ at revision 12"


class WriteRefused(GoodStack):
    """Writes are taken by the leader only."""

    def write(self, coordinator: str, name: str, number: int) -> None:
        if coordinator != self.leader:
            raise Unreachable("not the leader")
        super().write(coordinator, name, number)


class AgentMissing(GoodStack):
    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]:
        return {name: node for name, node in NODES.items() if name != "agent-2"}


class AgentElsewhere(GoodStack):
    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]:
        return {**NODES, "agent-3": replace(NODES["agent-3"], zone="zone-b")}


class AgentOffline(GoodStack):
    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]:
        return {**NODES, "agent-1": replace(NODES["agent-1"], phase="OFFLINE")}


class Stranger(GoodStack):
    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]:
        return {**NODES, "agent-9": NODES["agent-1"]}


class TasksPending(GoodStack):
    def tasks(self, coordinator: str) -> Mapping[str, TaskSeen]:
        return {name: replace(task, state="PENDING") for name, task in super().tasks(coordinator).items()}


class AllOnOneNode(GoodStack):
    def tasks(self, coordinator: str) -> Mapping[str, TaskSeen]:
        return {name: replace(task, node="agent-2") for name, task in super().tasks(coordinator).items()}


class NobodyFollows(GoodStack):
    """The leader goes and nobody takes its place."""

    def elect(self) -> None:
        if self.leader in self.gone | self.cut_off:
            self.leader = ""


class OldTerm(GoodStack):
    def elect(self) -> None:
        term = self.term
        super().elect()
        self.term = term


class TwoNewLeaders(GoodStack):
    def leads(self, coordinator: str, *, inside: bool = False) -> bool:
        leading = super().leads(coordinator, inside=inside)
        return True if self.gone else leading


class WriteLostInFailover(GoodStack):
    """An acknowledged write is the old one again once the leader has gone."""

    def stop(self, service: str) -> None:
        super().stop(service)
        self.stored = dict.fromkeys(self.stored, 0)

    def write(self, coordinator: str, name: str, number: int) -> None:
        if not self.gone:
            super().write(coordinator, name, number)


class AgentsLost(GoodStack):
    def has_session(self, agent: str) -> bool:
        return not self.gone


class TaskRestarted(GoodStack):
    def stop(self, service: str) -> None:
        super().stop(service)
        self.restart_task()


class NeverBack(GoodStack):
    def start(self, service: str) -> None:
        pass


class TakesOfficeAgain(GoodStack):
    """Who comes back takes the leadership from the one that has it."""

    def start(self, service: str) -> None:
        super().start(service)
        self.leader, self.term = service, self.term + 1


class ForgetfulWhenBack(GoodStack):
    back = ""

    def start(self, service: str) -> None:
        super().start(service)
        self.back = service

    def read(self, coordinator: str) -> Mapping[str, int]:
        return {} if coordinator == self.back else super().read(coordinator)


class DiesOnlyWhenKilled(GoodStack):
    def kill(self, service: str) -> None:
        self.gone.add(service)
        self.leader = ""


class LeadsInTheDark(GoodStack):
    """Cut off, it goes on to say that it leads."""

    def leads(self, coordinator: str, *, inside: bool = False) -> bool:
        return inside or super().leads(coordinator)


class FollowerMatters(GoodStack):
    """The leadership moves though it was a follower that was stopped."""

    def stop(self, service: str) -> None:
        super().stop(service)
        others = [name for name in self.coordinators if name not in {service, self.leader}]
        if service != self.leader and len(self.gone) == 1:
            self.leader, self.term = others[0], self.term + 1


class RestartedByTheEngine(GoodStack):
    def containers(self) -> Mapping[str, Container]:
        return {name: replace(it, restarts=int(name == "agent-1")) for name, it in super().containers().items()}


class LeavesVolumes(GoodStack):
    def remove(self) -> list[str]:
        return ["volume cloudless-ha_coordinator-1"]


PLANTED = {
    LeftOver: "old clusters are gone",
    NeverHealthy: "the stack is deployed and well",
    EnrolmentFailed: "the stack is deployed and well",
    ContainerMissing: "the stack is deployed and well",
    NobodyMaySignIn: "the stack is deployed and well",
    OwnCluster: "one cluster of three members",
    OwnVoters: "one cluster of three members",
    WrongDoor: "one cluster of three members",
    OwnEtcd: "one cluster of three members",
    LonelyEtcd: "one cluster of three members",
    EternalLearner: "one cluster of three members",
    TwoLeaders: "exactly one leader",
    NoLeaderShown: "exactly one leader",
    AnotherLeaderNamed: "exactly one leader",
    MetricMissing: "metrics are served",
    EveryRaftLeads: "metrics are served",
    NothingApplied: "metrics are served",
    NotReplicated: "state is replicated",
    StatesDiffer: "state is replicated",
    WriteRefused: "state is replicated",
    AgentMissing: "agents are enrolled",
    AgentElsewhere: "agents are enrolled",
    AgentOffline: "agents are enrolled",
    Stranger: "agents are enrolled",
    TasksPending: "tasks run",
    AllOnOneNode: "tasks run",
    NobodyFollows: "the leader is stopped",
    OldTerm: "the leader is stopped",
    TwoNewLeaders: "the leader is stopped",
    WriteLostInFailover: "the leader is stopped",
    AgentsLost: "the leader is stopped",
    TaskRestarted: "the leader is stopped",
    NeverBack: "the leader is stopped",
    TakesOfficeAgain: "the leader is stopped",
    ForgetfulWhenBack: "the leader is stopped",
    DiesOnlyWhenKilled: "the leader is killed",
    LeadsInTheDark: "the leader is cut off",
    FollowerMatters: "each coordinator is stopped in turn",
    RestartedByTheEngine: "data and tasks are intact",
    LeavesVolumes: "nothing is left",
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_planted_fault_fails_the_check_that_is_there_for_it(kind: type[GoodStack]) -> None:
    results = judge(kind())
    assert not has_passed(results)
    failed = next(result for result in results if result.outcome is Outcome.FAILED)
    assert failed.name == PLANTED[kind]
    assert failed.words
    after = results[results.index(failed) + 1 :]
    assert all(result.outcome is Outcome.NOT_RUN for result in after)


def test_every_check_is_failed_by_a_planted_fault() -> None:
    assert {name for name, _ in [*CHECKS, REMOVAL]} == set(PLANTED.values())


def test_a_leader_that_takes_a_while_is_waited_for() -> None:
    class Slow(GoodStack):
        since_s = 0.0

        def elect(self) -> None:
            self.since_s = self.now_s
            super().elect()

        def leads(self, coordinator: str, *, inside: bool = False) -> bool:
            return super().leads(coordinator, inside=inside) and self.now_s >= self.since_s + 3.0

    assert has_passed(judge(Slow()))


# --- the report ---------------------------------------------------------------------------------

MIXED = [
    Result("first", Outcome.PASSED, 1.5, "seen <all> & well"),
    Result("second", Outcome.FAILED, 2.0, "it was not so"),
    Result("third", Outcome.NOT_RUN, words="after the failure of: second"),
]


def test_the_report_says_the_same_in_all_three_forms(tmp_path: Path) -> None:
    write_report(MIXED, tmp_path / "new" / "results.txt")
    text = (tmp_path / "new" / "results.txt").read_text()
    assert "FAIL    2.0 s  second: it was not so" in text
    assert text.splitlines()[-1] == "FAILED: 1 passed, 1 failed, 1 not run, 4 s"
    told = json.loads((tmp_path / "new" / "results.json").read_text())
    assert told["passed"] is False
    assert [row["outcome"] for row in told["checks"]] == ["passed", "failed", "not run"]
    suite = ElementTree.fromstring((tmp_path / "new" / "results.xml").read_text())
    assert suite.attrib["tests"] == "3"
    assert suite.attrib["failures"] == suite.attrib["skipped"] == "1"
    assert suite.find("testcase/failure") is not None


def test_a_run_without_checks_or_with_one_that_was_not_run_has_not_passed() -> None:
    assert not has_passed([])
    assert not has_passed([MIXED[0], MIXED[2]])
    assert has_passed(MIXED[:1])
    assert json.loads(to_json(MIXED[:1]))["passed"] is True
    assert "failure" not in to_junit(MIXED[:1]).replace('failures="0"', "")
