"""Whatever happens to tasks and nodes: endpoints are exactly the ready tasks, and a watch's changes add up to them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.model import Desired, TaskState
from cloudless.core.naming import (
    Asker,
    Endpoint,
    Outcome,
    Question,
    RecordType,
    Zone,
    answer,
    compare_endpoints,
    find_endpoints,
    usable_endpoints,
)
from cloudless.core.state import Task
from cloudless.testing.builders import TestCluster
from tests.unit.naming.cluster import NODES, PORTS, add_task, build_cluster, stop


@dataclass(frozen=True)
class Step:
    """One thing that happens."""

    what: str
    node_id: str
    state: TaskState
    flag: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["report", "stop", "reach", "remove", "add", "delete"]),
        st.sampled_from(sorted(NODES)),
        st.sampled_from(list(TaskState)),
        st.booleans(),
    ),
    max_size=25,
)
ASKERS = st.builds(Asker, st.sampled_from(["", "n1", "n4", "unknown"]), st.text(max_size=3))


def carry_out(cluster: TestCluster, step: Step, number: int) -> None:
    task_id = f"web-{step.node_id}"
    known = task_id in cluster.machine.tasks
    match step.what:
        case "report" if known:
            cluster.report(task_id, step.state, ready=step.flag)
        case "stop" if known:
            stop(cluster, task_id)
        case "reach" if step.node_id in cluster.machine.nodes:
            cluster.set_reachable(step.node_id, step.flag)
        case "remove":
            cluster.remove_node(step.node_id)
        case "add":
            add_task(cluster, f"web-more-{number}", step.node_id, workload_uid="uid-1" if step.flag else "uid-0")
        case "delete" if step.flag and number > 20:
            cluster.mark_deleted()


def serves(cluster: TestCluster, task: Task) -> bool:
    """Return whether a task is to be an endpoint, said in the words of the documentation."""
    workload = cluster.machine.workloads["default", "web"].record
    return (
        not workload.deleted_at_ms
        and task.desired.workload_uid == workload.uid
        and task.desired.desired is Desired.RUNNING
        and task.observed is not None
        and task.observed.state is TaskState.RUNNING
        and task.observed.ready
    )


@given(STEPS, ASKERS)
def test_endpoints_are_exactly_the_ready_tasks_after_every_step(steps: list[Step], asker: Asker) -> None:
    cluster = build_cluster()
    for number, step in enumerate(steps):
        carry_out(cluster, step, number)
        found = find_endpoints(cluster.machine, "default", "web", asker)
        wanted = {
            (task.id, port.name) for task in cluster.machine.tasks.values() if serves(cluster, task) for port in PORTS
        }
        assert {endpoint.key for endpoint in found} == wanted
        assert len(found) == len(wanted), "none twice"
        assert list(found) == sorted(found, key=lambda endpoint: endpoint.rank)
        for endpoint in found:
            node = cluster.machine.nodes.get(endpoint.node_id)
            assert endpoint.doubtful == (node is None or not node.reachable)
        usable = usable_endpoints(found)
        assert bool(usable) == bool(found)
        assert not any(endpoint.doubtful for endpoint in usable) or all(endpoint.doubtful for endpoint in found)


@given(STEPS, ASKERS, st.lists(st.booleans(), min_size=25, max_size=25))
def test_the_changes_of_a_watch_add_up_to_what_is_however_many_steps_it_missed(
    steps: list[Step], asker: Asker, looks: list[bool]
) -> None:
    cluster = build_cluster()
    held: dict[tuple[str, str], Endpoint] = {}
    for number, step in enumerate(steps):
        carry_out(cluster, step, number)
        if not looks[number]:
            continue
        now = find_endpoints(cluster.machine, "default", "web", asker)
        changes = compare_endpoints(held, now)
        told = changes.fold(held)
        assert told == {endpoint.key: endpoint for endpoint in now}
        assert bool(changes) == (held != told), "nothing is told that has not changed"
        held = told


@given(STEPS, ASKERS)
def test_dns_gives_no_address_that_is_no_endpoints_and_services_that_can_all_be_followed(
    steps: list[Step], asker: Asker
) -> None:
    cluster = build_cluster()
    for number, step in enumerate(steps):
        carry_out(cluster, step, number)
    zone = Zone("cloudless")
    usable = usable_endpoints(find_endpoints(cluster.machine, "default", "web", asker))
    reply = answer(cluster.machine, zone, Question("web.default.svc.cloudless", RecordType.A), asker)
    assert reply.outcome is Outcome.OK
    assert [record.value for record in reply.answers] == list(dict.fromkeys(endpoint.host for endpoint in usable))
    services = answer(cluster.machine, zone, Question("_http._tcp.web.default.svc.cloudless", RecordType.SRV), asker)
    for record in services.answers:
        target = record.value.target  # type: ignore[union-attr]
        followed = answer(cluster.machine, zone, Question(target, RecordType.A), asker)
        assert len(followed.answers) == 1
    assert len(services.answers) == len({endpoint.task_id for endpoint in usable})
