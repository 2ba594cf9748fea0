"""What the domain answers."""

from __future__ import annotations

import pytest

from cloudless.core import keys
from cloudless.core.model import CoordinatorRecord, TaskState
from cloudless.core.naming import Asker, Outcome, Question, RecordType, Reply, ServiceAddress, Zone, answer
from cloudless.testing.builders import TestCluster, build_workload
from tests.unit.naming.cluster import NODES, add_task, build_cluster, stop

ZONE = Zone("cloudless")


def ask(cluster: TestCluster, name: str, kind: RecordType = RecordType.A, near: str = "") -> Reply:
    return answer(cluster.machine, ZONE, Question(name, kind), Asker(near, near))


def values(reply: Reply) -> list[object]:
    return [record.value for record in reply.answers]


def is_nodata(reply: Reply) -> bool:
    return reply.outcome is Outcome.OK and not reply.answers and reply.authority[0].type is RecordType.SOA


def test_a_workload_is_the_addresses_of_its_endpoints_the_nearest_first() -> None:
    reply = ask(build_cluster(), "web.default.svc.cloudless", near="n1")
    assert values(reply) == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]


def test_a_port_is_a_list_of_services_with_the_nearest_preferred_and_their_addresses_added() -> None:
    reply = ask(build_cluster(), "_http._tcp.web.default.svc.cloudless", RecordType.SRV, near="n1")
    assert values(reply)[:2] == [
        ServiceAddress(0, 1, 20_001, "web-n1.web.default.svc.cloudless"),
        ServiceAddress(10, 1, 20_002, "web-n2.web.default.svc.cloudless"),
    ]
    assert len(reply.answers) == len(NODES)
    added = {(record.name, record.value) for record in reply.additional}
    assert ("web-n1.web.default.svc.cloudless", "10.0.0.1") in added


def test_what_services_point_to_can_be_asked_for() -> None:
    cluster = build_cluster()
    assert values(ask(cluster, "web-n3.web.default.svc.cloudless")) == ["10.0.0.3"]
    stop(cluster, "web-n3")
    assert ask(cluster, "web-n3.web.default.svc.cloudless").outcome is Outcome.NO_SUCH_NAME


def test_udp_and_tcp_are_different_services() -> None:
    cluster = build_cluster()
    assert len(ask(cluster, "_stats._udp.web.default.svc.cloudless", RecordType.SRV).answers) == len(NODES)
    assert ask(cluster, "_stats._tcp.web.default.svc.cloudless", RecordType.SRV).outcome is Outcome.NO_SUCH_NAME


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web.default.svc.cloudless", RecordType.AAAA),
        ("web.default.svc.cloudless", RecordType.SRV),
        ("web.default.svc.cloudless", RecordType.OTHER),
        ("_http._tcp.web.default.svc.cloudless", RecordType.A),
        ("_tcp.web.default.svc.cloudless", RecordType.A),
        ("default.svc.cloudless", RecordType.A),
        ("svc.cloudless", RecordType.A),
        ("cloudless", RecordType.A),
    ],
)
def test_a_name_that_exists_with_nothing_of_that_type_is_nodata(name: str, kind: RecordType) -> None:
    assert is_nodata(ask(build_cluster(), name, kind))


@pytest.mark.parametrize(
    "name",
    [
        "nothing.default.svc.cloudless",
        "web.other.svc.cloudless",
        "other.svc.cloudless",
        "web.default.cloudless",
        "_smtp._tcp.web.default.svc.cloudless",
        "_http._tcp.nothing.default.svc.cloudless",
        "web-gone.web.default.svc.cloudless",
        "x.y.z.web.default.svc.cloudless",
        "..svc.cloudless",
        ".".join(["a"] * 100) + ".svc.cloudless",
    ],
)
def test_a_name_that_does_not_exist_is_refused_as_such_with_the_soa(name: str) -> None:
    reply = ask(build_cluster(), name)
    assert reply.outcome is Outcome.NO_SUCH_NAME
    assert [record.type for record in reply.authority] == [RecordType.SOA]


def test_a_workload_without_endpoints_exists_all_the_same() -> None:
    cluster = build_cluster()
    for node_id in NODES:
        cluster.report(f"web-{node_id}", TaskState.FAILED)
    assert is_nodata(ask(cluster, "web.default.svc.cloudless"))
    assert is_nodata(ask(cluster, "_http._tcp.web.default.svc.cloudless", RecordType.SRV))


@pytest.mark.parametrize("name", ["example.org", "notcloudless", "xcloudless", ""])
def test_what_is_not_under_the_domain_is_refused(name: str) -> None:
    assert ask(build_cluster(), name).outcome is Outcome.REFUSED


def test_resolvers_find_the_domains_own_records() -> None:
    cluster = build_cluster()
    (soa,) = ask(cluster, "cloudless", RecordType.SOA).answers
    assert soa.value == str(cluster.machine.revision)
    reply = ask(cluster, "cloudless", RecordType.NS)
    assert values(reply) == ["dns.cloudless"]
    assert [(record.name, record.value) for record in reply.additional] == [("dns.cloudless", "10.0.1.1")]
    assert values(ask(cluster, "dns.cloudless")) == ["10.0.1.1"]
    assert len(ask(cluster, "cloudless", RecordType.ANY).answers) == 2


def test_names_with_dots_in_them_are_found() -> None:
    cluster = build_cluster()
    cluster.add_workload(build_workload(name="api.v2", namespace="team.one", uid="uid-2"))
    add_task(cluster, "api.v2-abc", "n1", namespace="team.one", workload="api.v2", workload_uid="uid-2")
    assert values(ask(cluster, "api.v2.team.one.svc.cloudless")) == ["10.0.0.1"]
    assert values(ask(cluster, "api.v2-abc.api.v2.team.one.svc.cloudless")) == ["10.0.0.1"]
    assert is_nodata(ask(cluster, "one.svc.cloudless"))
    assert is_nodata(ask(cluster, "v2.team.one.svc.cloudless")), "a name above others is no missing one"


def test_ipv6_hosts_are_answered_as_such_and_hosts_that_are_names_by_name() -> None:
    cluster = build_cluster()
    cluster.report("web-n1", TaskState.RUNNING, host="[fd00::1]")
    reply = ask(cluster, "web.default.svc.cloudless", RecordType.AAAA)
    assert values(reply) == ["fd00::1"]
    for node_id in NODES:
        cluster.report(f"web-{node_id}", TaskState.RUNNING, host=f"{node_id}.Example.org")
    (record,) = ask(cluster, "web.default.svc.cloudless", near="n1").answers
    assert (record.type, record.value) == (RecordType.CNAME, "n1.example.org")
    reply = ask(cluster, "_http._tcp.web.default.svc.cloudless", RecordType.SRV, near="n1")
    assert isinstance(reply.answers[0].value, ServiceAddress)
    assert reply.answers[0].value.target == "n1.Example.org"
    assert reply.additional == ()


def test_doubtful_services_have_a_worse_priority_than_any_other() -> None:
    cluster = build_cluster()
    for node_id in NODES:
        cluster.set_reachable(node_id, False)
    reply = ask(cluster, "_http._tcp.web.default.svc.cloudless", RecordType.SRV, near="n1")
    assert [value.priority for value in values(reply) if isinstance(value, ServiceAddress)] == [40, 50, 60, 70]


def test_a_coordinator_whose_address_is_a_name_is_answered_by_name() -> None:
    cluster = build_cluster()
    cluster.put(keys.coordinator("c1"), CoordinatorRecord(id="c1", api_address="host-1:8080"))
    assert values(ask(cluster, "dns.cloudless")) == ["host-1"]
