"""Which tasks are endpoints, and in which order an asker is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudless.core import keys
from cloudless.core.model import TaskState
from cloudless.core.naming import Asker, Distance, compare_endpoints, find_endpoints, usable_endpoints
from cloudless.testing.builders import TestCluster, build_workload
from tests.unit.naming.cluster import NODES, add_task, build_cluster, ready, stop


def tasks_of(cluster: TestCluster, near: str = "", name: str = "x") -> list[str]:
    """Return the tasks of web's http endpoints in their order."""
    found = find_endpoints(cluster.machine, "default", "web", Asker(near, name))
    return [endpoint.task_id for endpoint in found if endpoint.port_name == "http"]


def test_every_port_of_every_ready_task_is_an_endpoint() -> None:
    found = find_endpoints(build_cluster().machine, "default", "web", Asker())
    assert {(one.task_id, one.port_name, one.host, one.port, one.protocol.value) for one in found} >= {
        ("web-n1", "http", "10.0.0.1", 20_001, "tcp"),
        ("web-n4", "stats", "10.0.0.4", 20_104, "udp"),
    }
    assert len(found) == 2 * len(NODES)


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.RUNNING])
def test_a_task_in_any_other_state_is_none(state: TaskState) -> None:
    cluster = build_cluster()
    cluster.report("web-n1", state)
    assert "web-n1" not in tasks_of(cluster)


def test_a_task_that_is_not_ready_is_none_until_it_is() -> None:
    cluster = build_cluster()
    cluster.report("web-n1", TaskState.RUNNING, ready=False)
    assert "web-n1" not in tasks_of(cluster)
    ready(cluster, "web-n1")
    assert "web-n1" in tasks_of(cluster)


def test_a_task_that_is_told_to_stop_is_none_while_it_still_runs() -> None:
    cluster = build_cluster()
    stop(cluster, "web-n1")
    assert cluster.machine.tasks["web-n1"].state is TaskState.RUNNING
    assert "web-n1" not in tasks_of(cluster)


def test_tasks_of_an_earlier_workload_of_the_name_are_none_and_those_of_a_deleted_one_neither() -> None:
    cluster = build_cluster()
    add_task(cluster, "web-old", "n1", workload_uid="uid-0")
    assert "web-old" not in tasks_of(cluster)
    cluster.mark_deleted()
    assert tasks_of(cluster) == []


def test_an_unreachable_nodes_endpoints_are_doubtful_last_and_given_only_for_want_of_others() -> None:
    cluster = build_cluster()
    cluster.set_reachable("n1", False)
    assert tasks_of(cluster, near="n1")[-1] == "web-n1"
    found = find_endpoints(cluster.machine, "default", "web", Asker("n1"))
    assert {one.task_id for one in found if one.doubtful} == {"web-n1"}
    assert "web-n1" not in {one.task_id for one in usable_endpoints(found)}
    for node_id in NODES:
        cluster.set_reachable(node_id, False)
    found = find_endpoints(cluster.machine, "default", "web", Asker("n1"))
    assert usable_endpoints(found) == found
    assert len(found) == 2 * len(NODES)
    cluster.remove_node("n1")
    assert "web-n1" in {one.task_id for one in find_endpoints(cluster.machine, "default", "web", Asker())}


def test_the_nearest_come_first() -> None:
    cluster = build_cluster()
    found = find_endpoints(cluster.machine, "default", "web", Asker("n1", "n1"))
    distances = {one.task_id: one.distance for one in found}
    assert distances == {
        "web-n1": Distance.NODE, "web-n2": Distance.ZONE, "web-n3": Distance.REGION, "web-n4": Distance.REST,
    }  # fmt: skip
    assert tasks_of(cluster, near="n1") == ["web-n1", "web-n2", "web-n3", "web-n4"]
    assert tasks_of(cluster, near="n4")[0] == "web-n4"


def test_a_zone_without_a_name_is_no_zone() -> None:
    cluster = build_cluster()
    for node_id in ("n1", "n2"):
        held = cluster.machine.nodes[node_id].info
        assert held is not None
        cluster.put(keys.node_info(node_id), replace(held, zone=""))
    found = find_endpoints(cluster.machine, "default", "web", Asker("n1"))
    assert {one.distance for one in found if one.task_id == "web-n2"} == {Distance.REGION}


def test_equally_near_ones_come_in_an_order_that_differs_from_asker_to_asker_and_stays() -> None:
    cluster = build_cluster()
    firsts = {name: tasks_of(cluster, name=name)[0] for name in map(str, range(50))}
    assert set(firsts.values()) == {f"web-{node_id}" for node_id in NODES}
    assert all(tasks_of(cluster, name=name)[0] == first for name, first in firsts.items())


def test_a_task_without_ports_is_reached_at_its_host() -> None:
    cluster = TestCluster()
    cluster.add_node("n1", address="10.0.0.1:8090")
    cluster.add_workload(build_workload())
    add_task(cluster, "web-x", "n1", spec=build_workload().spec)
    (endpoint,) = find_endpoints(cluster.machine, "default", "web", Asker())
    assert (endpoint.host, endpoint.port_name, endpoint.port) == ("10.0.0.1", "", 0)


def test_changes_tell_what_is_new_different_and_gone() -> None:
    cluster = build_cluster()
    before = {one.key: one for one in find_endpoints(cluster.machine, "default", "web", Asker())}
    stop(cluster, "web-n1")
    ready(cluster, "web-n2", http=30_000)
    now = find_endpoints(cluster.machine, "default", "web", Asker())
    changes = compare_endpoints(before, now)
    assert changes.gone == (("web-n1", "http"), ("web-n1", "stats"))
    assert {one.task_id for one in changes.put} == {"web-n2"}
    assert changes.fold(before) == {one.key: one for one in now}
    assert not compare_endpoints(changes.fold(before), now)
