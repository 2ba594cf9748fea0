"""The compose files give what the table of the cluster says: addresses, ports, settings that servers really read.

An earlier design had three clusters because of a name that nobody read: here every name is read by the code it is for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest

from cloudless.settings import find_unknown_settings, read_agent_settings, read_coordinator_settings
from tests.cluster.checks import NODES
from tests.unit.compose_file import COMPOSE, read, read_services

SINGLE, HA = "docker-compose.yml", "docker-compose-ha.yml"
FILES = (SINGLE, HA)
ONE_SHOT = {"founding", "enrol"}
ADDRESSES = {
    "coordinator-1": "172.28.0.10", "coordinator-2": "172.28.0.11", "coordinator-3": "172.28.0.12",
    "agent-1": "172.28.0.21", "agent-2": "172.28.0.22", "agent-3": "172.28.0.23",
    "prometheus": "172.28.0.30", "grafana": "172.28.0.31", "jaeger": "172.28.0.32", "loki": "172.28.0.33",
}  # fmt: skip
PORTS = {
    "coordinator-1": {"8080:8080", "8081:8081", "9090:9090", "8070:8070", "3010:3000"},
    "coordinator-2": {"8082:8080", "8083:8081", "9091:9090", "8071:8070", "3011:3000"},
    "coordinator-3": {"8084:8080", "8085:8081", "9092:9090", "8072:8070", "3012:3000"},
    "prometheus": {"9093:9090"},
    "grafana": {"3001:3000"},
    "jaeger": {"16686:16686", "4318:4318"},
    "loki": {"3100:3100"},
}
EVERY_SERVICE = [(name, service) for name in FILES for service in sorted(read_services(name))]


def servers(name: str, role: str) -> dict[str, dict[str, Any]]:
    return {service: told for service, told in read_services(name).items() if service.startswith(f"{role}-")}


@pytest.mark.parametrize("name", FILES)
def test_coordinators_read_every_setting_they_are_given(name: str) -> None:
    for service, told in servers(name, "coordinator").items():
        environment = told["environment"]
        assert not find_unknown_settings(environment)
        settings = read_coordinator_settings(environment)
        assert settings.node_id == told["hostname"] == service
        assert settings.advertise_address == f"{ADDRESSES[service]}:8080"
        assert settings.raft_address == f"{ADDRESSES[service]}:3000"
        assert settings.tls
        assert str(settings.founding_file) == "/founding/cloudless.founding"


@pytest.mark.parametrize("name", FILES)
def test_agents_read_every_setting_they_are_given(name: str) -> None:
    coordinators = tuple(f"{ADDRESSES[service]}:8080" for service in servers(name, "coordinator"))
    agents = servers(name, "agent")
    assert set(agents) == set(NODES)
    for service, told in agents.items():
        assert not find_unknown_settings(told["environment"])
        settings = read_agent_settings(told["environment"])
        assert settings.node_id == settings.node_name == told["hostname"] == service
        assert settings.coordinators == coordinators
        assert settings.advertise_address == f"{ADDRESSES[service]}:8090"
        assert str(settings.join_token_file) == f"/tokens/{service}"
        assert settings.tls
        expected, capacity = NODES[service], settings.capacity
        amounts = (capacity.cpu_millicores, capacity.memory_mb, capacity.storage_mb, capacity.bandwidth_mbps)
        assert (settings.zone, settings.node_type, amounts) == (expected.zone, expected.type, expected.capacity)
        assert settings.region == "local"


def test_three_coordinators_found_one_cluster_and_one_founds_it_alone() -> None:
    settings = [read_coordinator_settings(told["environment"]) for told in servers(HA, "coordinator").values()]
    assert len(settings) == 3
    assert {one.bootstrap_expect for one in settings} == {3}
    assert {one.join_addresses for one in settings} == {tuple(f"172.28.0.{n}:8080" for n in (10, 11, 12))}
    (alone,) = servers(SINGLE, "coordinator").values()
    assert read_coordinator_settings(alone["environment"]).bootstrap


@pytest.mark.parametrize("name", FILES)
def test_addresses_and_ports_are_those_of_the_table(name: str) -> None:
    services = read_services(name)
    for service, told in services.items():
        networks = told.get("networks", {})
        address = networks["cloudless"]["ipv4_address"] if isinstance(networks, dict) and networks else None
        assert address == ADDRESSES.get(service, address)
        if service in PORTS:
            assert {port.partition(":")[2] for port in told["ports"]} == PORTS[service]
        for port in told.get("ports", []):
            assert port.startswith("127.0.0.1:")
    assert read(COMPOSE / name)["networks"]["cloudless"]["ipam"]["config"] == [{"subnet": "172.28.0.0/16"}]
    used = [a["cloudless"]["ipv4_address"] for s in services.values() if isinstance(a := s.get("networks"), dict)]
    assert len(used) == len(set(used))


def test_every_service_of_the_guide_is_there() -> None:
    assert set(ADDRESSES) | {"alertmanager", "alloy"} <= set(read_services(HA))


@pytest.mark.parametrize(("name", "service"), EVERY_SERVICE)
def test_every_service_is_pinned_bounded_and_looked_after(name: str, service: str) -> None:
    told = read_services(name)[service]
    repository, _, tag = told["image"].partition(":")
    assert repository
    assert tag == "local" or re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert told["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert told["mem_limit"]
    assert told["pids_limit"]
    if service in ONE_SHOT:
        assert told["restart"] == "no"
        assert told["healthcheck"] == {"disable": True}
    else:
        assert told["restart"] == "unless-stopped"
        assert told["healthcheck"]["test"]


@pytest.mark.parametrize("name", FILES)
def test_only_agents_are_root_and_only_they_and_the_shipper_have_the_engine(name: str) -> None:
    for service, told in read_services(name).items():
        if told["image"] == "cloudless:local":
            assert (told.get("user") == "0:0") is service.startswith("agent-")
        sockets = [v for v in told.get("volumes", []) if isinstance(v, dict) and v["target"].endswith("docker.sock")]
        assert bool(sockets) is (service.startswith("agent-") or service == "alloy")


@pytest.mark.parametrize("name", FILES)
def test_each_waits_for_what_it_needs(name: str) -> None:
    services = read_services(name)
    coordinators = servers(name, "coordinator")
    for told in coordinators.values():
        assert told["depends_on"] == {"founding": {"condition": "service_completed_successfully"}}
    assert services["enrol"]["depends_on"] == {c: {"condition": "service_healthy"} for c in coordinators}
    for told in servers(name, "agent").values():
        assert told["depends_on"] == {"enrol": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", FILES)
def test_every_volume_is_declared_and_used(name: str) -> None:
    used = {
        volume.partition(":")[0]
        for told in read_services(name).values()
        for volume in told.get("volumes", [])
        if isinstance(volume, str)
    }
    assert used == set(read(COMPOSE / name)["volumes"]) | ({"monitor-enrolment"} & used)


@pytest.mark.parametrize("name", FILES)
def test_docker_reads_them_without_a_word(name: str) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs docker's command line")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("needs docker's compose plugin")
    done = subprocess.run(
        ["docker", "compose", "-f", str(COMPOSE / name), "--profile", "*", "config", "--quiet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_known_only_of_a_line_is_labelled_where_lines_are_read() -> None:
    """Alloy's discovery knows nothing of a line: a rule there for its stream would never set a label."""
    text = (COMPOSE / "alloy/config.alloy").read_text(encoding="utf-8")
    blocks = dict(re.findall(r'^(\S+ "\w+") \{\n(.*?)^\}', text, flags=re.MULTILINE | re.DOTALL))
    (named,) = [name for name, body in blocks.items() if "__meta_docker_container_log_stream" in body]
    label = named.split('"')[1]
    assert f"relabel_rules = discovery.relabel.{label}.rules" in blocks['loki.source.docker "containers"']


@pytest.mark.parametrize("name", FILES)
def test_coordinators_go_before_agents_on_a_busy_processor(name: str) -> None:
    for told in servers(name, "coordinator").values():
        assert told["cpu_shares"] == 4096
    for told in servers(name, "agent").values():
        assert "cpu_shares" not in told
