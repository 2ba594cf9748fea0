"""What the compose stack must do, check by check: each looks until it is so or its deadline is over.

A check returns words that say what was seen, or raises CheckFailed. What one check learns the later ones hold the
stack to: every number written must be readable to the end, every task must stay the very same process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.cluster.stack import NodeSeen, Stack, TaskSeen, Unreachable

POLL_S = 0.2
HEALTHY_S = 180.0
FORMED_S = 60.0
LEADER_S = 15.0
"""From the end of a leader to exactly one other. The lease of one that is cut off runs out first."""
VISIBLE_S = 10.0
ENROLLED_S = 30.0
RUNNING_S = 60.0
REJOINED_S = 60.0
STEPPED_DOWN_S = 15.0

METRICS = ("is_leader", "raft_state", "raft_applied_index", "raft_commit_index")
"""What operators were promised under the prefix cloudless_coordinator_."""
RAFT_FOLLOWER, RAFT_LEADER = 0, 2

NODES: Mapping[str, NodeSeen] = {
    "agent-1": NodeSeen("READY", "zone-a", "server", (2000, 2048, 10 * 1024, 100)),
    "agent-2": NodeSeen("READY", "zone-b", "server", (4000, 4096, 20 * 1024, 200)),
    "agent-3": NodeSeen("READY", "zone-a", "edge", (1000, 1024, 5 * 1024, 50)),
}


class CheckFailed(Exception):
    """What is not as it must be."""


@dataclass(slots=True)
class Trial:
    """One run over a stack: what it has written and started, and how it waits. Times in seconds, monotonic.

    Every deadline is `patience` times as long: for machines that are busy with other things.
    """

    stack: Stack
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    patience: float = 1.0
    written: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, TaskSeen] = field(default_factory=dict)

    def until(self, what: str, within_s: float, find_fault: Callable[[], str]) -> float:
        """Ask until nothing is wrong any more; return how long that took. Raises CheckFailed with the last fault."""
        begun_s = self.clock()
        while True:
            try:
                fault = find_fault()
            except Unreachable as error:
                fault = str(error) or "no answer"
            took_s = self.clock() - begun_s
            if not fault:
                return took_s
            if took_s > within_s * self.patience:
                raise CheckFailed(f"{what}: {fault} (after {within_s * self.patience:g} s)")
            self.pause(POLL_S)

    def write(self, coordinator: str, what: str) -> None:
        """Write a new number through one coordinator; from now on it has to be there."""
        number = self.written.get(what, 0) + 1
        write = partial(self.stack.write, coordinator, what, number)
        self.until(f"a write through {coordinator}", LEADER_S, lambda: _fine(write))
        self.written[what] = number


def _fine(do: Callable[[], None]) -> str:
    do()
    return ""


def check_cleared(trial: Trial) -> str:
    """Nothing is left of earlier runs."""
    trial.stack.clear()
    left = sorted(trial.stack.containers())
    if left:
        raise CheckFailed(f"still there: {', '.join(left)}")
    return "no container of an earlier run is left"


def check_deployed(trial: Trial) -> str:
    """Every container runs and is well, or has done its work."""
    trial.stack.deploy()
    took_s = trial.until("all well", HEALTHY_S, lambda: find_ill(trial))
    trial.until("signing in over the published ports", LEADER_S, lambda: _fine(trial.stack.sign_in))
    return f"{len(trial.stack.containers())} containers, all well {took_s:.1f} s after the engine had started them"


def find_ill(trial: Trial, away: Iterable[str] = ()) -> str:
    """Return which containers are not as they should be, with those `away` left out."""
    containers = trial.stack.containers()
    expected = {*trial.stack.coordinators, *trial.stack.agents} - set(away)
    faults = [f"{name} is not there" for name in sorted(expected - set(containers))]
    for name in sorted(set(containers) - set(away)):
        it = containers[name]
        done = it.state == "exited" and it.exit_code == 0 and name not in expected
        if not done and (it.state != "running" or it.health not in ("", "healthy")):
            faults.append(f"{name} is {it.state} {it.health or it.exit_code}")
    return ", ".join(faults)


def check_formed(trial: Trial) -> str:
    """One cluster of three voters: by the word of every coordinator, and of every etcd."""
    took_s = trial.until("one cluster of three voters", FORMED_S, lambda: find_not_formed(trial))
    stack = trial.stack
    cluster = stack.sight(stack.coordinators[0]).cluster_id
    etcd = stack.etcd_view(stack.coordinators[0]).cluster_id
    return f"cluster {cluster}, etcd's {etcd}, voters {', '.join(stack.coordinators)} ({took_s:.1f} s)"


def find_not_formed(trial: Trial) -> str:
    stack, everybody = trial.stack, frozenset(trial.stack.coordinators)
    # etcd first: one that is in a cluster of its own may know nobody who could ask it anything else.
    views = {name: stack.etcd_view(name) for name in stack.coordinators}
    if len({view.cluster_id for view in views.values()}) != 1:
        return "several etcd clusters: " + ", ".join(f"{name} is in {view.cluster_id}" for name, view in views.items())
    for name, view in views.items():
        if view.voters != everybody or view.learners:
            return f"etcd of {name} counts {sorted(view.voters)} as voters, {sorted(view.learners)} as learners"
    sights = {name: stack.sight(name) for name in stack.coordinators}
    for name, sight in sights.items():
        if sight.coordinator_id != name:
            return f"{sight.coordinator_id} answers at the address of {name}"
        if (voters := stack.voters(name)) != everybody:
            return f"{name} counts {sorted(voters)} as voters"
    if len({sight.cluster_id for sight in sights.values()}) != 1:
        return "several clusters: " + ", ".join(f"{name} is in {sight.cluster_id}" for name, sight in sights.items())
    return ""


def check_one_leader(trial: Trial) -> str:
    """Exactly one shows `cloudless_coordinator_is_leader 1` at its published port, and all name that one."""
    took_s = trial.until("exactly one leader", LEADER_S, lambda: find_no_single_leader(trial))
    leader, term = leader_of(trial)
    return f"{leader} leads, term {term} ({took_s:.1f} s)"


def says_it_leads(trial: Trial, coordinator: str, *, inside: bool = False) -> bool:
    """Return whether a coordinator's metrics say that it leads. Raises Unreachable."""
    told = trial.stack.metrics(coordinator, inside=inside)
    if "is_leader" not in told:
        raise Unreachable(f"{coordinator} has no metric cloudless_coordinator_is_leader")
    return told["is_leader"] == 1.0


def find_leading(trial: Trial, among: Iterable[str]) -> list[str]:
    """Return those whose metrics say that they lead."""
    return [name for name in among if says_it_leads(trial, name)]


def find_no_single_leader(trial: Trial, away: Iterable[str] = ()) -> str:
    """Return why it cannot be said that exactly one coordinator leads and all others follow it."""
    here = [name for name in trial.stack.coordinators if name not in set(away)]
    leading = find_leading(trial, here)
    if len(leading) != 1:
        return f"{len(leading)} say that they lead: {', '.join(leading) or 'none'}"
    sights = {name: trial.stack.sight(name) for name in here}
    if {(sight.leader_id, sight.term) for sight in sights.values()} != {(leading[0], sights[leading[0]].term)}:
        told = ", ".join(f"{name} names {sight.leader_id or 'none'} ({sight.term})" for name, sight in sights.items())
        return f"{leading[0]} says that it leads; {told}"
    return ""


def check_metrics_served(trial: Trial) -> str:
    """Every coordinator serves the metrics of the seed, and they agree: one member of etcd leads, all have its log."""
    took_s = trial.until("the metrics of every coordinator", VISIBLE_S, lambda: find_metrics_wrong(trial))
    (leads,) = [name for name in trial.stack.coordinators if trial.stack.metrics(name)["raft_state"] == RAFT_LEADER]
    return f"{', '.join(METRICS)} at each; etcd's leader is that of {leads} ({took_s:.1f} s)"


def find_metrics_wrong(trial: Trial) -> str:
    told = {name: trial.stack.metrics(name) for name in trial.stack.coordinators}
    lacking = [f"{name} has no cloudless_coordinator_{m}" for name in told for m in METRICS if m not in told[name]]
    if lacking:
        return ", ".join(lacking)
    states = {name: int(values["raft_state"]) for name, values in told.items()}
    if sorted(states.values()) != [RAFT_FOLLOWER] * (len(states) - 1) + [RAFT_LEADER]:
        return f"raft_state is {states}"
    empty = [
        f"{m} of {name}" for name in told for m in ("raft_applied_index", "raft_commit_index") if told[name][m] < 1
    ]
    return f"{', '.join(empty)} below 1" if empty else ""


def leader_of(trial: Trial, away: Iterable[str] = ()) -> tuple[str, int]:
    """Return the leader and its term. Raises CheckFailed if there is none."""
    found: list[tuple[str, int]] = []

    def look() -> str:
        fault = find_no_single_leader(trial, away)
        if not fault:
            asked = next(name for name in trial.stack.coordinators if name not in set(away))
            sight = trial.stack.sight(asked)
            found.append((sight.leader_id, sight.term))
        return fault

    trial.until("exactly one leader", LEADER_S, look)
    return found[-1]


def check_replicated(trial: Trial) -> str:
    """What was written through one coordinator is in the memory of the others; all states are the same."""
    for name in trial.stack.coordinators:
        trial.write(name, f"through-{name}")
    return check_intact(trial)


def check_intact(trial: Trial, away: Iterable[str] = ()) -> str:
    """Every number that was ever acknowledged is in the memory of every coordinator."""
    here = [name for name in trial.stack.coordinators if name not in set(away)]
    for name in here:
        trial.until(f"all that was written, on {name}", VISIBLE_S, partial(find_lost, trial, name))
    if len(here) == len(trial.stack.coordinators):
        trial.until("equal states", VISIBLE_S, trial.stack.digests_differ)
    return f"{len(trial.written)} objects, {sum(trial.written.values())} writes, on {', '.join(here)}"


def find_lost(trial: Trial, coordinator: str) -> str:
    seen = trial.stack.read(coordinator)
    lost = [f"{name} is {seen.get(name)} instead of {n}" for name, n in trial.written.items() if seen.get(name) != n]
    return ", ".join(lost)


def check_enrolled(trial: Trial) -> str:
    """Every coordinator knows the three agents, READY, with what the compose file gives them."""
    for name in trial.stack.coordinators:
        trial.until(f"agents, asked of {name}", ENROLLED_S, partial(find_missing_agents, trial, name))
    return ", ".join(f"{name} ({node.zone}, {node.type})" for name, node in NODES.items())


def find_missing_agents(trial: Trial, coordinator: str) -> str:
    seen = trial.stack.nodes(coordinator)
    faults = [
        f"{name} is {seen.get(name, 'not known')}" for name in trial.stack.agents if seen.get(name) != NODES[name]
    ]
    return ", ".join(faults + [f"{name} is a stranger" for name in sorted(set(seen) - set(trial.stack.agents))])


def check_tasks_run(trial: Trial) -> str:
    """A workload runs, one task on each node; from now on each has to stay the very same process."""
    stack = trial.stack
    stack.run_tasks(stack.coordinators[0], len(stack.agents))

    def find_fault() -> str:
        seen = stack.tasks(stack.coordinators[0])
        running = sorted(task.node for task in seen.values() if task.state == "RUNNING")
        if running != sorted(stack.agents) or len(seen) != len(running):
            return f"{len(seen)} tasks, running on {', '.join(running) or 'no node'}"
        trial.tasks = dict(seen)
        return ""

    took_s = trial.until("a task on each node", RUNNING_S, find_fault)
    return f"{len(trial.tasks)} tasks run ({took_s:.1f} s)"


def check_tasks_untouched(trial: Trial, away: Iterable[str] = ()) -> None:
    """The tasks are those of the beginning: same processes, no attempt more. Raises CheckFailed."""
    asked = next(name for name in trial.stack.coordinators if name not in set(away))
    trial.until("tasks", VISIBLE_S, lambda: _find_other_tasks(trial, asked))


def _find_other_tasks(trial: Trial, coordinator: str) -> str:
    seen = dict(trial.stack.tasks(coordinator))
    if seen == trial.tasks:
        return ""
    for name, task in trial.tasks.items():
        if name in seen and (seen[name].pid, seen[name].attempt) != (task.pid, task.attempt):
            raise CheckFailed(f"task {name} on {task.node} was restarted: {task} became {seen[name]}")
    return f"{seen} instead of {trial.tasks}"


def _others_go_on(trial: Trial, gone: str, term: int) -> tuple[float, str]:
    """See that without `gone` one leads, that writes work through each, and that agents and tasks stay."""
    stack, away = trial.stack, [gone]

    def find_fault() -> str:
        fault = find_no_single_leader(trial, away)
        if not fault and stack.sight(next(n for n in stack.coordinators if n != gone)).term <= term:
            fault = f"still in term {term}"
        return fault

    here = [name for name in stack.coordinators if name != gone]
    # Metrics answer at once, so this is the time that counts; then all is asked, and must fit.
    took_s = trial.until("a new leader", LEADER_S, lambda: "" if find_leading(trial, here) else "none leads")
    trial.until(f"exactly one new leader without {gone}", LEADER_S, find_fault)
    leader, _ = leader_of(trial, away)
    for name in stack.coordinators:
        if name != gone:
            trial.write(name, f"through-{name}")
    check_intact(trial, away)
    check_agents_follow(trial, away)
    check_tasks_untouched(trial, away)
    return took_s, leader


def check_agents_follow(trial: Trial, away: Iterable[str]) -> None:
    """Every agent has a session to a coordinator that is there, and is READY for all of them. Raises CheckFailed."""
    here = [name for name in trial.stack.coordinators if name not in set(away)]
    for agent in trial.stack.agents:
        trial.until(f"a session of {agent}", ENROLLED_S, partial(_find_no_session, trial, agent))
    for name in here:
        trial.until(f"agents, asked of {name}", ENROLLED_S, partial(find_missing_agents, trial, name))


def _find_no_session(trial: Trial, agent: str) -> str:
    return "" if trial.stack.has_session(agent) else "none"


def check_leader_stopped(trial: Trial) -> str:
    """The leader is told to end: exactly one other leads, and everything goes on."""
    return _without_leader(trial, trial.stack.stop)


def check_leader_killed(trial: Trial) -> str:
    """The leader and its etcd are killed at once: exactly one other leads, and everything goes on."""
    return _without_leader(trial, trial.stack.kill)


def _without_leader(trial: Trial, end: Callable[[str], None]) -> str:
    old, term = leader_of(trial)
    end(old)
    took_s, new = _others_go_on(trial, old, term)
    new_term = trial.stack.sight(new).term
    trial.stack.start(old)
    rejoined = _rejoin(trial, old, new, new_term)
    return f"{old} gone, {new} seen leading after {took_s:.1f} s; {rejoined}"


def _rejoin(trial: Trial, old: str, leader: str, term: int) -> str:
    """See that `old` comes back as a follower of the same leader, with all that was written meanwhile."""
    took_s = trial.until(f"{old} is back", REJOINED_S, lambda: find_ill(trial) or find_not_formed(trial))
    if leader_of(trial) != (leader, term):
        raise CheckFailed(
            f"{leader} led in term {term}; with {old} back {' in term '.join(map(str, leader_of(trial)))}"
        )
    check_intact(trial)
    check_tasks_untouched(trial)
    return f"back as a follower, with all data, after {took_s:.1f} s"


def check_leader_cut_off(trial: Trial) -> str:
    """The leader loses its network: it stops saying that it leads, the others have one, and it comes back to follow."""
    stack = trial.stack
    old, term = leader_of(trial)
    stack.cut(old)
    try:
        took_s, new = _others_go_on(trial, old, term)
        new_term = stack.sight(new).term
        down_s = trial.until(
            f"{old}, cut off, steps down", STEPPED_DOWN_S,
            lambda: "it still says that it leads" if says_it_leads(trial, old, inside=True) else "",
        )  # fmt: skip
    finally:
        stack.mend(old)
    rejoined = _rejoin(trial, old, new, new_term)
    return f"{old} cut off, {new} seen leading after {took_s:.1f} s, stepped down {down_s:.1f} s later; {rejoined}"


def check_each_in_turn(trial: Trial) -> str:
    """Each coordinator is stopped and started again: the cluster serves all the while."""
    told = []
    for name in trial.stack.coordinators:
        before, term = leader_of(trial)
        trial.stack.stop(name)
        took_s, leader = _others_go_on(trial, name, term if name == before else term - 1)
        new_term = trial.stack.sight(leader).term
        if name != before and (leader, new_term) != (before, term):
            raise CheckFailed(f"{before} led in term {term}, and lost that because its follower {name} was stopped")
        trial.stack.start(name)
        _rejoin(trial, name, leader, new_term)
        told.append(f"{name} ({took_s:.1f} s)")
    return "stopped and back: " + ", ".join(told)


def check_end_state(trial: Trial) -> str:
    """After all that: one cluster, one leader, all data, the same tasks, and no container that the engine restarted."""
    words = [check_formed(trial), check_one_leader(trial), check_intact(trial), check_enrolled(trial)]
    check_tasks_untouched(trial)
    restarted = {name: it.restarts for name, it in trial.stack.containers().items() if it.restarts}
    if restarted:
        raise CheckFailed(f"the engine had to restart {restarted}")
    return "; ".join(words[:3]) + f"; {len(trial.tasks)} tasks untouched"


def check_removed(trial: Trial) -> str:
    """`down -v` leaves nothing: no container, volume or network."""
    left = trial.stack.remove()
    if left:
        raise CheckFailed(f"left behind: {', '.join(left)}")
    return "no container, volume or network is left"


CHECKS: tuple[tuple[str, Callable[[Trial], str]], ...] = (
    ("old clusters are gone", check_cleared),
    ("the stack is deployed and well", check_deployed),
    ("one cluster of three members", check_formed),
    ("exactly one leader", check_one_leader),
    ("metrics are served", check_metrics_served),
    ("state is replicated", check_replicated),
    ("agents are enrolled", check_enrolled),
    ("tasks run", check_tasks_run),
    ("the leader is stopped", check_leader_stopped),
    ("the leader is killed", check_leader_killed),
    ("the leader is cut off", check_leader_cut_off),
    ("each coordinator is stopped in turn", check_each_in_turn),
    ("data and tasks are intact", check_end_state),
)
REMOVAL = ("nothing is left", check_removed)
