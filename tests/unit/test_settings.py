"""Settings from the environment: limits are told as they are meant, whatever binary fractions make of them."""

from __future__ import annotations

import socket

import pytest

from cloudless.errors import BadSettings
from cloudless.settings import find_unknown_settings, read_agent_settings, read_coordinator_settings

NAMED = {"CLOUDLESS_NODE_ID": "coordinator-1"}


@pytest.mark.parametrize("period", ["0.1", "0.2", "0.3", "0.7", "1.1", "20"])
def test_a_node_timeout_of_three_heartbeat_periods_is_long_enough(period: str) -> None:
    timeout = f"{3 * float(period):.1f}"
    settings = {"CLOUDLESS_HEARTBEAT_PERIOD": period, "CLOUDLESS_NODE_TIMEOUT": timeout}
    assert read_coordinator_settings({**NAMED, **settings}).node_timeout_s == float(timeout)


def test_a_shorter_node_timeout_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(BadSettings, match=r"at least three heartbeat periods \(0\.6 s\)"):
        read_coordinator_settings({**NAMED, "CLOUDLESS_HEARTBEAT_PERIOD": "0.2", "CLOUDLESS_NODE_TIMEOUT": "0.59"})


def test_names_that_nobody_reads_are_found_without_knowing_what_is_to_run() -> None:
    environ = {"CLOUDLESS_NODE_ID": "c1", "CLOUDLESS_COORDINATORS": "x:1", "CLOUDLESS_ZOEN": "a", "OTHER": "x"}
    (problem,) = find_unknown_settings(environ)
    assert str(problem) == "CLOUDLESS_ZOEN: is not a known setting; did you mean CLOUDLESS_ZONE?"


@pytest.mark.parametrize(
    ("quota", "fine"), [("16", True), ("8192", True), ("15", False), ("9000", False), ("2G", False)]
)
def test_the_quota_of_the_store_is_within_what_etcd_can_bear(quota: str, fine: bool) -> None:
    environ = {**NAMED, "CLOUDLESS_ETCD_QUOTA_MB": quota}
    if fine:
        assert read_coordinator_settings(environ).etcd_quota_mb == int(quota)
        return
    with pytest.raises(BadSettings, match="CLOUDLESS_ETCD_QUOTA_MB"):
        read_coordinator_settings(environ)


def test_seeds_of_every_kind_are_read_and_kept_as_they_are_written() -> None:
    seeds = "10.0.0.1, [fd00::1]:9,node-1,dns+c.example.org,srv+_cloudless._tcp.example.org"
    read = ("10.0.0.1:8080", "[fd00::1]:9", "node-1:8080", "dns+c.example.org:8080", "srv+_cloudless._tcp.example.org")
    assert read_coordinator_settings({**NAMED, "CLOUDLESS_RAFT_JOIN_ADDR": seeds}).join_addresses == read
    agent = read_agent_settings({**NAMED, "CLOUDLESS_COORDINATOR_ADDR": seeds, "CLOUDLESS_DNS_SERVER": "10.0.0.53"})
    assert (agent.coordinators, agent.dns_servers) == (read, (("10.0.0.53", 53),))


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        (
            "RAFT_JOIN_ADDR",
            "10.0.0.1,srv+x",
            r"CLOUDLESS_RAFT_JOIN_ADDR: entry 2 \(srv\+x\) must have the name of an SRV",
        ),
        ("RAFT_JOIN_ADDR", "fd00::1:8080", r"CLOUDLESS_RAFT_JOIN_ADDR: must have an IPv6 address in brackets"),
        ("DNS_SERVER", "dns.example.org", r"CLOUDLESS_DNS_SERVER: must be addresses of DNS servers"),
        ("RAFT_ADDR", "fd00::1:3000", r"CLOUDLESS_RAFT_ADDR: must have an IPv6 address in brackets"),
    ],
)
def test_a_faulty_seed_names_the_setting_the_entry_and_the_cure(name: str, value: str, cure: str) -> None:
    with pytest.raises(BadSettings, match=cure):
        read_coordinator_settings({**NAMED, f"CLOUDLESS_{name}": value})


def test_founders_are_counted_where_they_are_listed_and_not_where_dns_stands_for_them() -> None:
    expecting = {**NAMED, "CLOUDLESS_BOOTSTRAP_EXPECT": "3"}
    with pytest.raises(BadSettings, match="must list the 3 coordinators"):
        read_coordinator_settings({**expecting, "CLOUDLESS_RAFT_JOIN_ADDR": "a,b"})
    assert read_coordinator_settings({**expecting, "CLOUDLESS_RAFT_JOIN_ADDR": "dns+c.example.org"}).join_addresses


def test_ipv6_addresses_keep_their_brackets_and_a_wildcard_becomes_this_machines_name() -> None:
    given = {"CLOUDLESS_BIND_ADDR": "[::]:1", "CLOUDLESS_RAFT_ADDR": "[FD00::1]:2", "CLOUDLESS_HTTP_ADDR": ":3"}
    settings = read_coordinator_settings({**NAMED, **given})
    assert settings.bind_address == "[::]:1"
    assert settings.advertise_address == f"{socket.gethostname()}:1"
    assert (settings.raft_address, settings.http_address) == ("[fd00::1]:2", "0.0.0.0:3")


def test_an_agent_uses_the_engine_of_its_machine_unless_told_otherwise() -> None:
    agent = {**NAMED, "CLOUDLESS_COORDINATOR_ADDR": "c1"}
    plain = read_agent_settings(agent)
    assert (plain.docker, plain.docker_host) == ("auto", "unix:///var/run/docker.sock")
    told = read_agent_settings(
        {**agent, "CLOUDLESS_DOCKER_ENABLED": "False", "CLOUDLESS_DOCKER_HOST": "unix:///run/user/7/docker.sock"}
    )
    assert (told.docker, told.docker_host) == ("false", "unix:///run/user/7/docker.sock")


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("DOCKER_ENABLED", "maybe", "must be one of auto, true, false"),
        ("DOCKER_HOST", "tcp://10.0.0.1:2375", "must be the engine's socket on this machine"),
        ("DOCKER_HOST", "unix://", "must be the engine's socket on this machine"),
        ("DOCKER_ENABLE", "true", "did you mean CLOUDLESS_DOCKER_ENABLED"),
    ],
)
def test_a_wrong_engine_is_refused(name: str, value: str, cure: str) -> None:
    with pytest.raises(BadSettings, match=cure):
        read_agent_settings({**NAMED, "CLOUDLESS_COORDINATOR_ADDR": "c1", f"CLOUDLESS_{name}": value})


def test_names_are_answered_nowhere_unless_it_is_said_where() -> None:
    settings = read_coordinator_settings(NAMED)
    assert (settings.dns_address, settings.dns_domain, settings.dns_ttl_s, settings.dns_stale_max_s) == (
        "", "cloudless", 5, 30.0,
    )  # fmt: skip
    given = {"DNS_ADDR": "10.0.0.5:53", "DNS_DOMAIN": "Cluster.Example.org.", "DNS_TTL": "0", "DNS_STALE_MAX": "60"}
    settings = read_coordinator_settings({**NAMED, **{f"CLOUDLESS_{name}": value for name, value in given.items()}})
    assert (settings.dns_address, settings.dns_domain, settings.dns_ttl_s, settings.dns_stale_max_s) == (
        "10.0.0.5:53", "cluster.example.org", 0, 60.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DNS_ADDR", "10.0.0.5"),
        ("DNS_DOMAIN", ""),
        ("DNS_DOMAIN", "a..b"),
        ("DNS_DOMAIN", "-a"),
        ("DNS_DOMAIN", "a_b"),
        ("DNS_DOMAIN", "a" * 64),
        ("DNS_TTL", "-1"),
        ("DNS_TTL", "4000"),
        ("DNS_STALE_MAX", "0.1"),
    ],
)
def test_what_names_cannot_be_answered_with_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"CLOUDLESS_{name}"):
        read_coordinator_settings({**NAMED, f"CLOUDLESS_{name}": value})


def test_a_misspelt_setting_of_names_leads_to_the_right_one() -> None:
    with pytest.raises(BadSettings, match="did you mean CLOUDLESS_DNS_DOMAIN"):
        read_coordinator_settings({**NAMED, "CLOUDLESS_DNS_DOMAN": "x"})
