"""Coordinators and agents that find each other through DNS, through what they learned, and never through a mistake."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudless.adapters.member.learned import Learned
from cloudless.cli.methods import REMOVE_MEMBER
from cloudless.errors import FormationRefused, MemberRemoved, outcome_of
from cloudless.rpc.v1.agent_pb2 import JournalHead
from cloudless.rpc.v1.cluster_pb2 import RemoveMemberRequest
from etcd.find import Found
from tests.architecture.tree import ROOT
from tests.integration.cluster import COORDINATORS, HOST, LocalCluster, Process, free_ports
from tests.integration.dns_server import DnsServer
from tests.integration.etcd_fixture import binary

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIRST, SECOND, THIRD = COORDINATORS
NAME = "cloudless.example.org"
SERVICE = "_cloudless._tcp.example.org"
REFUSED = outcome_of(FormationRefused).exit_code
# Nobody listens there, and nobody ever will: port 1 needs root.
GONE = f"{HOST}:1"


class Addresses:
    """Each process has a loopback address of its own and all the same API port, as on hosts of their own."""

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}
        (self.api_port,) = free_ports(1)

    def host_of(self, name: str) -> str:
        return self._hosts.setdefault(name, f"127.0.7.{len(self._hosts) + 1}")

    def ports_of(self, name: str, *uses: str) -> dict[str, int]:
        return dict(zip(uses, free_ports(len(uses)), strict=True)) | {"api": self.api_port}

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        return argv


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    server = DnsServer(ttl_s=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cluster(tmp_path: Path, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path, binary.path, Addresses())
    yield made
    made.close()


@pytest.fixture(scope="module")
def formed(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    """Three coordinators found by the SRV records of one name, and an agent that knows the first of them only."""
    server = DnsServer(ttl_s=0)
    server.start()
    made = LocalCluster(tmp_path_factory.mktemp("formed"), binary.path)
    made.add_coordinators()
    publish(server, *made.coordinators)
    for process in made.coordinators:
        process.settings |= {"BOOTSTRAP_EXPECT": "3", "RAFT_JOIN_ADDR": f"srv+{SERVICE}", "DNS_SERVER": server.address}
    made.start(*COORDINATORS)
    try:
        made.wait_formed()
        server.stop()  # from here on nobody can look anything up
        made.add_agent("agent-1")
        made.processes["agent-1"].settings["COORDINATOR_ADDR"] = made.processes[FIRST].address()
        made.start("agent-1")
        made.wait_ready()
        yield made
    finally:
        server.stop()
        made.close()


def publish(dns: DnsServer, *processes: Process) -> None:
    """Let the name of the service stand for these coordinators."""
    dns.hold(SERVICE, "SRV", *(f"10 1 {p.ports['api']} {p.name}.example.org." for p in processes))
    for process in processes:
        dns.hold(f"{process.name}.example.org", "A", process.host)


def learned(cluster: LocalCluster, agent: str) -> dict[str, str]:
    """Return what an agent has on its disk of all coordinators."""
    content = (cluster.processes[agent].data_dir / "head").read_bytes()
    return {one.id: one.address for one in JournalHead.FromString(content[8:]).coordinators}


def says(cluster: LocalCluster, name: str, words: str) -> None:
    cluster.until(lambda: words in cluster.tail(name, 2000), f"{name} says {words!r}")


# --- seeds in DNS ---


def test_founders_named_by_srv_records_found_one_cluster_and_come_back_without_dns(formed: LocalCluster) -> None:
    formed.assert_one_cluster()
    own = Learned.read(formed.datadir(SECOND).coordinators)
    assert {one.id: one.address for one in own.coordinators} == {p.name: p.address() for p in formed.coordinators}
    formed.stop(*COORDINATORS)
    formed.start(*COORDINATORS)
    formed.wait_ready()
    formed.assert_one_cluster()


@pytest.mark.slow
def test_coordinators_join_through_a_name_once_dns_answers(cluster: LocalCluster, dns: DnsServer) -> None:
    cluster.add_coordinators()
    for process in cluster.coordinators:
        process.settings |= {"RAFT_JOIN_ADDR": f"dns+{NAME}:{process.ports['api']}", "DNS_SERVER": dns.address}
    cluster.processes[FIRST].settings["BOOTSTRAP"] = "true"
    dns.rcode = "SERVFAIL"
    cluster.start(*COORDINATORS)
    for name in COORDINATORS:
        says(cluster, name, "no DNS server could answer")
        assert not cluster.has_formed(name)
    dns.rcode = ""
    dns.hold(NAME, "A", *(process.host for process in cluster.coordinators))
    cluster.wait_formed()
    cluster.assert_one_cluster()


class OverIpv6:
    """Everything on ::1, which every address has to name in brackets."""

    def host_of(self, name: str) -> str:
        return "[::1]"

    def ports_of(self, name: str, *uses: str) -> dict[str, int]:
        return dict(zip(uses, free_ports(len(uses)), strict=True))

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        return argv


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_cluster_lives_on_ipv6_alone(tmp_path: Path, binary: Found) -> None:
    cluster = LocalCluster(tmp_path, binary.path, OverIpv6())
    try:
        cluster.add_coordinators()
        cluster.found_together()
        cluster.add_agent("agent-1")
        cluster.start(*COORDINATORS, "agent-1")
        cluster.wait_ready()
        cluster.assert_one_cluster()
        assert learned(cluster, "agent-1")[FIRST] == cluster.processes[FIRST].address()
        assert cluster.metric(FIRST, "agent_sessions") + cluster.metric(SECOND, "agent_sessions") >= 1
    finally:
        cluster.close()


@pytest.mark.slow
def test_an_agent_with_a_token_is_let_in_and_served_by_what_dns_says(cluster: LocalCluster, dns: DnsServer) -> None:
    """With TLS: the door for newcomers and the API are found by two SRV records."""
    cluster.add_coordinators([FIRST])
    first = cluster.processes[FIRST]
    with_tls(first)
    (door,) = free_ports(1)
    first.settings |= {"BOOTSTRAP": "true", "ENROL_ADDR": f"{first.host}:{door}"}
    cluster.start(FIRST)
    says(cluster, FIRST, "leading")
    home = {"PATH": "/usr/bin:/bin", "HOME": str(cluster.root), "XDG_CONFIG_HOME": str(cluster.root / "config")}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "cloudless.cli.main", *words]
        done = subprocess.run(command, env=home, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(
        "login", "--name", "admin", "-c", first.address(), "--join-address", f"{first.host}:{door}",
        "--coordinator-identity", str(first.data_dir / "identity"),
    )  # fmt: skip
    token = next(word for word in run("token", "create", "--role", "agent").split() if word.startswith("cl1."))
    publish(dns, first)
    dns.hold("_enrol._tcp.example.org", "SRV", f"0 1 {door} {FIRST}.example.org.")
    cluster.add_agent("agent-1")
    agent = cluster.processes["agent-1"]
    with_tls(agent)
    agent.settings |= {
        "COORDINATOR_ADDR": f"srv+{SERVICE}", "ENROL_AT": "srv+_enrol._tcp.example.org", "DNS_SERVER": dns.address,
        "JOIN_TOKEN": token,
    }  # fmt: skip
    cluster.start("agent-1")
    says(cluster, "agent-1", f"primary coordinator is {FIRST}")


def with_tls(process: Process) -> None:
    """Take back what most tests say of TLS: its default is on."""
    del process.settings["TLS_ENABLED"]
    del process.settings["ALLOW_PLAIN_NETWORK"]


# --- reaching only oneself ---


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"BOOTSTRAP": "true"}, id="found"),
        pytest.param({}, id="join", marks=pytest.mark.slow),
        pytest.param({"BOOTSTRAP_EXPECT": "3"}, id="expect", marks=pytest.mark.slow),
    ],
)
def test_a_node_that_reaches_only_itself_neither_joins_nor_founds_and_says_so(
    cluster: LocalCluster, dns: DnsServer, told: dict[str, str]
) -> None:
    cluster.add_coordinators([FIRST])
    process = cluster.processes[FIRST]
    dns.hold(NAME, "A", process.host)
    seed = f"dns+{NAME}:{process.ports['api']}"
    process.settings |= {"RAFT_JOIN_ADDR": seed, "DNS_SERVER": dns.address, "ADVERTISE_ADDR": GONE, **told}
    cluster.start(FIRST)
    says(cluster, FIRST, f"{process.address()} leads back to this coordinator itself")
    asked = cluster.asked(FIRST, "ClusterService/GetFormation")
    cluster.until(lambda: cluster.asked(FIRST, "ClusterService/GetFormation") > asked + 2, "it looks again and again")
    assert not cluster.has_formed(FIRST)
    assert cluster.asked(FIRST, "ClusterService/JoinRaftCluster") == 0
    assert cluster.processes[FIRST].lives


# --- what was learned ---


def test_an_agent_survives_the_replacement_of_all_its_seeds(formed: LocalCluster) -> None:
    everybody = {process.name: process.address() for process in formed.coordinators}
    formed.until(lambda: learned(formed, "agent-1") == everybody, "the agent knows all", 10)
    formed.add_coordinators(["coordinator-4"])
    fourth = formed.processes["coordinator-4"]
    fourth.settings["RAFT_JOIN_ADDR"] = formed.processes[SECOND].address()
    formed.start("coordinator-4")
    says(formed, "coordinator-4", "a learner, ready to vote")
    formed.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=FIRST), SECOND, THIRD)
    assert formed.exit_of(FIRST)[0] == outcome_of(MemberRemoved).exit_code
    del everybody[FIRST]
    everybody["coordinator-4"] = fourth.address()
    formed.until(lambda: learned(formed, "agent-1") == everybody, "the agent knows the new one, not the removed", 30)
    seed = formed.processes.pop(FIRST)
    for name in (SECOND, THIRD):
        path = formed.datadir(name).coordinators
        formed.until(lambda: f'"{FIRST}"' not in path.read_text(), "so have the others", 5)  # noqa: B023
    formed.kill("agent-1")
    assert formed.processes["agent-1"].settings["COORDINATOR_ADDR"] == seed.address()
    formed.start("agent-1")
    formed.wait_ready(20)


@pytest.mark.slow
def test_a_coordinator_that_lost_its_data_and_its_seed_comes_back_by_what_it_learned(formed: LocalCluster) -> None:
    third = formed.processes[THIRD]
    third.settings["RAFT_JOIN_ADDR"] = GONE
    third.settings.pop("BOOTSTRAP_EXPECT", None)
    formed.stop(THIRD)
    formed.empty(THIRD, only_etcd=True)
    formed.start(THIRD)
    formed.wait_ready()


@pytest.mark.slow
def test_all_api_addresses_change_while_all_are_down_and_the_seeds_in_dns_say_so(
    tmp_path: Path, binary: Found, dns: DnsServer
) -> None:
    cluster = LocalCluster(tmp_path, binary.path)
    try:
        cluster.add_coordinators()
        publish(dns, *cluster.coordinators)
        for process in cluster.coordinators:
            process.settings |= {"BOOTSTRAP_EXPECT": "3", "RAFT_JOIN_ADDR": f"srv+{SERVICE}", "DNS_SERVER": dns.address}
        cluster.add_agent("agent-1")
        cluster.processes["agent-1"].settings |= {"COORDINATOR_ADDR": f"srv+{SERVICE}", "DNS_SERVER": dns.address}
        cluster.start(*COORDINATORS, "agent-1")
        cluster.wait_ready()
        before = learned(cluster, "agent-1")
        cluster.stop(*COORDINATORS)  # the agent runs on, and knows three addresses at which nobody is any more
        for process in cluster.coordinators:
            (process.ports["api"],) = free_ports(1)
            process.settings["BIND_ADDR"] = process.address()
        publish(dns, *cluster.coordinators)
        cluster.forget_clients()
        cluster.start(*COORDINATORS)
        cluster.wait_ready()
        cluster.assert_one_cluster()
        everybody = {process.name: process.address() for process in cluster.coordinators}
        assert not set(before.values()) & set(everybody.values())
        cluster.until(lambda: learned(cluster, "agent-1") == everybody, "the agent has learned the new addresses", 10)
    finally:
        cluster.close()


# --- two clusters ---


@pytest.mark.slow
def test_two_clusters_behind_one_list_are_refused_by_who_belongs_to_neither(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    cluster.add_coordinators([FIRST, SECOND])
    for name in (FIRST, SECOND):
        cluster.processes[name].settings["BOOTSTRAP"] = "true"
    cluster.start(FIRST, SECOND)
    for name in (FIRST, SECOND):
        cluster.until(lambda: cluster.status(name).header.leader_id == name, f"{name} leads", 20)  # noqa: B023
    both = f"{cluster.processes[FIRST].address()},{cluster.processes[SECOND].address()}"
    ids = [f"{cluster.status(name).etcd_cluster_id:x}" for name in (FIRST, SECOND)]
    cluster.add_coordinators([THIRD])
    cluster.processes[THIRD].settings["RAFT_JOIN_ADDR"] = both
    cluster.add_agent("agent-1")
    cluster.processes["agent-1"].settings["COORDINATOR_ADDR"] = both
    cluster.start(THIRD, "agent-1")
    for name, setting in ((THIRD, "CLOUDLESS_RAFT_JOIN_ADDR"), ("agent-1", "CLOUDLESS_COORDINATOR_ADDR")):
        code, said = cluster.exit_of(name)
        assert code == REFUSED, said
        assert "the addresses lead to different clusters" in said
        assert all(id in said for id in ids)
        assert f"give {setting}" in said
    # Who belongs to one of them is not led astray by seeds of the other.
    agent = cluster.processes["agent-1"]
    agent.settings["COORDINATOR_ADDR"] = cluster.processes[FIRST].address()
    cluster.start("agent-1")
    cluster.until(lambda: cluster.status(FIRST).nodes_ready == 1, "the agent belongs to the first")
    cluster.stop("agent-1")
    agent.settings["COORDINATOR_ADDR"] = cluster.processes[SECOND].address()
    cluster.start("agent-1")
    says(cluster, "agent-1", "CLOUDLESS_COORDINATOR_ADDR must lead to one cluster only")
    cluster.until(lambda: cluster.status(FIRST).nodes_ready == 1, "it came back to the first by what it learned")
    assert cluster.status(SECOND).nodes_total == 0


# --- founding a second time ---


@pytest.mark.slow
def test_an_emptied_first_coordinator_waits_for_its_silent_seeds_and_joins_them(formed: LocalCluster) -> None:
    cluster_id = formed.status(SECOND).header.cluster_id
    others = [process.name for process in formed.coordinators if process.name != SECOND]
    second = formed.processes[SECOND]
    second.settings.pop("BOOTSTRAP_EXPECT", None)
    second.settings |= {"BOOTSTRAP": "true", "RAFT_JOIN_ADDR": ",".join(formed.processes[o].address() for o in others)}
    formed.stop(SECOND, *others)
    formed.empty(SECOND)
    formed.start(SECOND)
    says(formed, SECOND, "to say that there is no cluster yet")
    assert not formed.has_formed(SECOND)
    formed.start(*others)
    formed.wait_ready()
    assert formed.status(SECOND).header.cluster_id == cluster_id


# --- the command line ---


def test_the_command_line_takes_the_same_seeds(formed: LocalCluster, dns: DnsServer) -> None:
    publish(dns, *formed.coordinators)
    command = [sys.executable, "-m", "cloudless.cli.main", "-o", "json", "cluster", "status"]
    environment = {"PATH": "/usr/bin:/bin", "CLOUDLESS_DNS_SERVER": dns.address}

    def run(seeds: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=environment | {"CLOUDLESS_COORDINATORS": seeds}, cwd=ROOT, capture_output=True, text=True,
            check=False, timeout=30,
        )  # fmt: skip

    done = run(f"srv+{SERVICE}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    lost = run("srv+_nobody._tcp.example.org")
    assert lost.returncode == 3
    assert "no coordinator is found in DNS: srv+_nobody._tcp.example.org" in lost.stderr
    assert "there is no such name" in lost.stderr
