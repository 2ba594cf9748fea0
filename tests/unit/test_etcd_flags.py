"""The member's command line by version, and the timing profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from etcd.flags import MemberConfig, TlsFiles, build_argv, effective, gateway_url
from etcd.gate import Version
from etcd.profiles import PROFILES

CONFIG = MemberConfig(
    name="c1",
    data_dir="/data/etcd",
    peer_listen_url="http://0.0.0.0:3000",
    peer_advertise_url="http://10.0.0.1:3000",
    client_url="http://127.0.0.1:2379",
    initial_cluster=(("c1", "http://10.0.0.1:3000"), ("c2", "http://10.0.0.2:3000")),
    initial_cluster_state="existing",
    cluster_token="token",
    client_http_url="http://127.0.0.1:2381",
)


def flags(version: str, config: MemberConfig = CONFIG) -> dict[str, str]:
    binary, *rest = build_argv("/bin/etcd", Version.parse(version), config)
    assert binary == "/bin/etcd"
    pairs: list[list[str]] = [argument.removeprefix("--").split("=", 1) for argument in rest]
    assert len({name for name, _ in pairs}) == len(pairs), "a flag is given twice"
    return dict(pairs)


@pytest.mark.parametrize("version", ["3.4.45", "3.5.30", "3.6.14", "3.7.1"])
def test_what_etcd_leaves_off_or_unbounded_is_set_for_every_version(version: str) -> None:
    given = flags(version)
    assert given["auto-compaction-mode"] == "periodic"
    assert given["auto-compaction-retention"] == "10m"
    assert given["quota-backend-bytes"] == str(2 * 1024**3)
    assert given["max-txn-ops"] == "2048"
    assert given["pre-vote"] == given["strict-reconfig-check"] == "true"
    assert given["initial-cluster"] == "c1=http://10.0.0.1:3000,c2=http://10.0.0.2:3000"
    assert given["initial-cluster-state"] == "existing"
    assert given["log-outputs"] == "stderr"


#     version    has                                                  has not
@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        (
            "3.4.23",
            {"logger", "experimental-watch-progress-notify-interval", "snapshot-count"},
            {"listen-client-http-urls", "experimental-compact-hash-check-enabled", "feature-gates"},
        ),
        ("3.5.9", {"experimental-watch-progress-notify-interval"}, {"logger", "listen-client-http-urls"}),
        (
            "3.5.30",
            {"listen-client-http-urls", "experimental-watch-progress-notify-interval"},
            {"logger", "watch-progress-notify-interval", "feature-gates"},
        ),
        ("3.6.14", {"watch-progress-notify-interval", "snapshot-count", "feature-gates"}, {"logger"}),
        ("3.7.1", {"watch-progress-notify-interval", "feature-gates"}, {"snapshot-count", "logger"}),
    ],
)
def test_a_flag_is_given_only_to_versions_that_have_it(version: str, present: set[str], absent: set[str]) -> None:
    given = set(flags(version))
    assert present <= given
    assert not absent & given


def test_no_experimental_flag_is_given_from_3_6_on() -> None:
    assert not [name for name in flags("3.6.0") | flags("3.7.1") if name.startswith("experimental")]


def test_the_gateway_is_on_the_http_listener_only_where_there_is_one() -> None:
    assert gateway_url(CONFIG, Version(3, 5, 30)) == "http://127.0.0.1:2381"
    assert gateway_url(CONFIG, Version(3, 4, 23)) == "http://127.0.0.1:2379"
    assert gateway_url(replace(CONFIG, client_http_url=None), Version(3, 5, 30)) == "http://127.0.0.1:2379"


def test_tls_files_turn_on_client_authentication_on_both_listeners() -> None:
    secured = replace(CONFIG, client_tls=TlsFiles("c", "k", "a"), peer_tls=TlsFiles("pc", "pk", "pa"))
    given = flags("3.5.30", secured)
    assert (given["cert-file"], given["key-file"], given["trusted-ca-file"]) == ("c", "k", "a")
    assert (given["peer-cert-file"], given["peer-key-file"], given["peer-trusted-ca-file"]) == ("pc", "pk", "pa")
    assert given["client-cert-auth"] == given["peer-client-cert-auth"] == "true"


def test_bootstrap_settings_do_not_make_a_running_member_another_one() -> None:
    version = Version(3, 5, 30)
    first = build_argv("etcd", version, replace(CONFIG, initial_cluster_state="new"))
    assert effective(first) == effective(build_argv("etcd", version, CONFIG))
    assert effective(first) != effective(build_argv("etcd", version, replace(CONFIG, heartbeat_ms=20)))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_profile_is_one_that_etcd_accepts(profile) -> None:  # type: ignore[no-untyped-def]
    # etcd refuses an election timeout under five heartbeats or over 50 s.
    assert 5 * profile.heartbeat_ms <= profile.election_ms <= 50_000


@pytest.mark.parametrize(("name", "ttl_s"), [("lan", 1), ("default", 1), ("wan", 2), ("slow-disk", 3)])
def test_the_shortest_lease_follows_from_the_election_timeout(name: str, ttl_s: int) -> None:
    assert PROFILES[name].lease_ttl_min_s == ttl_s
