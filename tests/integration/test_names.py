"""Service names on a live cluster: endpoints follow what runs, on every coordinator, whoever leads."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import dns.exception
import dns.message
import dns.nameserver
import dns.query
import dns.rcode
import dns.resolver
import pytest

from cloudless.cli.client import Client
from cloudless.cli.endpoints import follow_endpoints
from cloudless.cli.methods import DELETE_WORKLOAD, LIST_ENDPOINTS
from cloudless.errors import Denied, InvalidSpec, NotFound
from cloudless.rpc.v1.names_pb2 import Endpoint, ListEndpointsRequest, WatchEndpointsRequest
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from etcd.find import Found
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import COORDINATORS, HOST, LocalCluster, free_ports, manifest_of, stale
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

WEB = "web.default.svc.cluster.test."
SERVE = ["python3", "-m", "http.server", "--bind", HOST, "$(CLOUDLESS_PORT_HTTP)"]
AGENTS = {"agent-1": "zone-a", "agent-2": "zone-b"}
GONE_S = 3.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path_factory.mktemp("names"), binary.path)
    made.add_coordinators()
    made.found_together()
    for process, port in zip(made.coordinators, free_ports(len(COORDINATORS)), strict=True):
        process.ports["dns"] = port
        process.settings |= {"DNS_ADDR": f"{HOST}:{port}", "DNS_DOMAIN": "cluster.test", "DNS_STALE_MAX": "3"}
    for name, zone in AGENTS.items():
        made.add_agent(name, zone=zone)
    made.start(*made.processes)
    try:
        made.wait_ready()
        made.apply(
            manifest_of(
                "web", replicas=4, command=SERVE, ports=[{"name": "http"}], placement={"spreadTopology": "node"},
                restartPolicy={"policy": "ALWAYS", "backoff": "10s"},
            )
        )  # fmt: skip
        made.until(lambda: len(listed(made)) == 4, "four endpoints")
        yield made
    finally:
        made.close()


def listed(cluster: LocalCluster, near: str = "", *via: str) -> list[Endpoint]:
    request = ListEndpointsRequest(workload="web", near_node_id=near, read=stale() if via else None)
    return list(cluster.call(LIST_ENDPOINTS, request, *via).endpoints)


def resolver(cluster: LocalCluster, *names: str) -> dns.resolver.Resolver:
    """Return dnspython's resolver, which asks the named coordinators in turn."""
    made = dns.resolver.Resolver(configure=False)
    ports = [cluster.processes[name].ports["dns"] for name in names]
    made.nameservers = [dns.nameserver.Do53Nameserver(HOST, port) for port in ports]
    made.timeout, made.lifetime = 1.0, 8.0
    return made


def services(cluster: LocalCluster, *names: str) -> set[int]:
    """Return the ports that DNS gives; none while nobody can tell."""
    with suppress(dns.exception.DNSException):
        found = resolver(cluster, *names).resolve(f"_http._tcp.{WEB}", "SRV")
        return {record.port for record in found}
    return set()


def answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.status) == 200


def test_every_coordinator_tells_of_the_same_endpoints_and_they_answer(cluster: LocalCluster) -> None:
    told = {name: {(e.task_id, e.port) for e in listed(cluster, "", name)} for name in COORDINATORS}
    assert len({frozenset(endpoints) for endpoints in told.values()}) == 1
    for endpoint in listed(cluster):
        assert not endpoint.doubtful
        url = f"http://{endpoint.host}:{endpoint.port}/"
        # Without a readiness probe a task is ready from its start, a moment before it listens.
        cluster.until(partial(answers, url), f"{url} answers")


def test_the_nearest_come_first(cluster: LocalCluster) -> None:
    for agent in AGENTS:
        assert [endpoint.distance for endpoint in listed(cluster, agent)] == ["node", "node", "region", "region"]
        assert listed(cluster, agent)[0].node_id == agent


def test_what_does_not_exist_or_makes_no_sense_is_said(cluster: LocalCluster) -> None:
    with pytest.raises(NotFound):
        cluster.call(LIST_ENDPOINTS, ListEndpointsRequest(workload="nothing"))
    with pytest.raises(InvalidSpec):
        cluster.call(LIST_ENDPOINTS, ListEndpointsRequest())
    with pytest.raises((InvalidSpec, Denied)):
        next(iter(follow_endpoints(cluster.client(), WatchEndpointsRequest(workload="web", min_revision=-1))))


def test_dns_of_every_coordinator_gives_ports_that_answer(cluster: LocalCluster) -> None:
    wanted = {endpoint.port for endpoint in listed(cluster)}
    for name in COORDINATORS:
        assert services(cluster, name) == wanted
        asked = resolver(cluster, name)
        assert [record.address for record in asked.resolve(WEB, "A")] == [HOST]
        with pytest.raises(dns.resolver.NXDOMAIN):
            asked.resolve(f"no-{WEB}", "A")
        with pytest.raises(dns.resolver.NoAnswer):
            asked.resolve(WEB, "AAAA")


def test_the_command_line_lists_them(cluster: LocalCluster) -> None:
    rows = [
        line.split()
        for line in must(run_cli(cluster, "workload", "endpoints", "web", "--near", "agent-1")).splitlines()
    ]
    assert rows[0][:4] == ["ADDRESS", "PORT", "PROTOCOL", "TASK"]
    assert {row[0] for row in rows[1:]} == {f"{endpoint.host}:{endpoint.port}" for endpoint in listed(cluster)}
    missing = run_cli(cluster, "workload", "endpoints", "nothing")
    assert missing.code != 0
    assert "nothing" in missing.text


def test_a_killed_tasks_endpoint_goes_with_its_status_and_a_watch_tells_of_it(cluster: LocalCluster) -> None:
    seen: dict[tuple[str, str], Endpoint] = {}
    first = threading.Event()
    watching = Client(cluster.api_addresses())
    stop = threading.Event()

    def watch() -> None:
        with suppress(Exception):  # the client is closed under it at the end
            for step in follow_endpoints(watching, WatchEndpointsRequest(workload="web")):
                for endpoint in step.gone:
                    seen.pop((endpoint.task_id, endpoint.port_name), None)
                seen.update({(endpoint.task_id, endpoint.port_name): endpoint for endpoint in step.put})
                first.set()
                if stop.is_set():
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert first.wait(10)
    assert len(seen) == 4
    victim = cluster.tasks("web")[0]
    os.kill(victim.observed.pid, signal.SIGKILL)
    gone = victim.desired.id
    cluster.until(lambda: all(e.task_id != gone for e in listed(cluster)), "it is no endpoint any more", GONE_S)
    cluster.until(lambda: all(key[0] != gone for key in seen), "the watch has told so", GONE_S)
    cluster.until(
        lambda: services(cluster, *COORDINATORS).isdisjoint(victim.observed.ports.values()), "DNS too", GONE_S
    )
    cluster.until(lambda: len(listed(cluster)) == 4, "it runs again, after its back-off", 30)

    def adds_up() -> bool:
        now = {(endpoint.task_id, endpoint.port_name): endpoint.port for endpoint in listed(cluster)}
        return {key: endpoint.port for key, endpoint in seen.items()} == now

    cluster.until(adds_up, "the watch adds up to what is listed", 10)
    stop.set()
    watching.close()
    thread.join(10)


def test_a_dead_leader_costs_a_resolver_no_answer(cluster: LocalCluster) -> None:
    wanted = {endpoint.port for endpoint in listed(cluster)}
    leader = cluster.leader()
    order = [leader, *(name for name in COORDINATORS if name != leader)]
    assert services(cluster, *order) == wanted
    cluster.kill(leader, etcd=True)
    assert services(cluster, *order) == wanted, "the next name server answers at once"
    cluster.until(lambda: services(cluster, order[1]) == wanted, "after the election as before")
    cluster.start(leader)
    cluster.wait_formed()
    cluster.until(lambda: services(cluster, leader) == wanted, "the returned one answers again")


def test_a_coordinator_that_is_cut_off_refuses_to_answer_once_its_state_is_old(cluster: LocalCluster) -> None:
    left, *others = COORDINATORS
    cluster.kill(*others, etcd=True)

    def refused() -> bool:
        query = dns.message.make_query(WEB, "A")
        answer = dns.query.udp(query, HOST, timeout=2.0, port=cluster.processes[left].ports["dns"])
        return answer.rcode() == dns.rcode.SERVFAIL

    cluster.until(refused, "SERVFAIL", 20)
    cluster.start(*others)
    cluster.wait_formed()
    cluster.until(lambda: len(services(cluster, left)) == 4, "it answers again", 30)


def test_an_unreachable_nodes_endpoints_are_doubtful_and_those_of_a_deleted_workload_gone(
    cluster: LocalCluster,
) -> None:
    cluster.apply(manifest_of("still", replicas=2, placement={"spreadTopology": "node"}, lostAfter="10m"))

    def still() -> list[Endpoint]:
        return list(cluster.call(LIST_ENDPOINTS, ListEndpointsRequest(workload="still")).endpoints)

    cluster.until(lambda: len(still()) == 2, "two endpoints without ports")
    cluster.kill("agent-2")
    cluster.until(lambda: [e.doubtful for e in still()] == [False, True], "the lost node's is doubtful, and last", 20)
    assert still()[1].node_id == "agent-2"
    cluster.start("agent-2")
    cluster.until(lambda: [e.doubtful for e in still()] == [False, False], "it is back", 20)
    cluster.call(DELETE_WORKLOAD, DeleteWorkloadRequest(name="still"))

    def gone() -> bool:
        try:
            return not still()
        except NotFound:
            return True

    assert gone(), "from the very answer to the deletion on"


def test_hostile_packets_end_nothing(cluster: LocalCluster) -> None:
    name = COORDINATORS[0]
    port = cluster.processes[name].ports["dns"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(200):
            sender.sendto(os.urandom(number), (HOST, port))
    with socket.create_connection((HOST, port)) as sender:
        sender.sendall(b"\xff\xff" + os.urandom(100))
    assert len(services(cluster, name)) == 4
    assert cluster.processes[name].lives
