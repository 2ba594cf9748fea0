"""Write the command line of one etcd member for the version at hand. Pure.

etcd stops at a flag that it does not know, and flags come, change their names and go: `--experimental-*`
is gone in 3.7, the HTTP-only listener came during 3.5. So each flag of `_flags` carries the versions that have
it, and a setting whose flag is missing is left out. Everything that etcd leaves off or unbounded by default
(compaction, quota, pre-vote in 3.4) is set always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from etcd.gate import Version
from etcd.profiles import PROFILES

_HTTP_LISTENER_SINCE = Version(3, 5, 11)
_FIRST, _LAST = Version(0, 0, 0), Version(99, 0, 0)
_BOOTSTRAP_FLAGS = ("--initial-cluster=", "--initial-cluster-state=", "--initial-cluster-token=")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of one party's certificate and key, and of the authority that the other party's must come from.

    `client_cert_file` is what a member shows when it dials, with the same key; empty: `cert_file`.
    """

    cert_file: str
    key_file: str
    ca_file: str
    client_cert_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberConfig:
    """Settings of one member; all times and sizes with their unit.

    `initial_cluster`, its state and token count only while the member has no write-ahead log.
    """

    name: str
    data_dir: str
    peer_listen_url: str
    peer_advertise_url: str
    # Loopback: only this host's coordinator talks to its member.
    client_url: str
    initial_cluster: tuple[tuple[str, str], ...]
    initial_cluster_state: Literal["new", "existing"]
    cluster_token: str
    heartbeat_ms: int = PROFILES["default"].heartbeat_ms
    election_ms: int = PROFILES["default"].election_ms
    # Beyond it etcd refuses all writes, lease grants too (alarm NOSPACE).
    quota_bytes: int = 2 * 1024**3
    # Raft entries kept in memory for followers that lag; 3.4 and 3.5 keep 100,000 by default, hundreds of MB.
    snapshot_count: int = 10_000
    # History kept for watchers that resume; off by default in etcd, and the database then grows for ever.
    auto_compaction_retention: str = "10m"
    # A group commit carries many nested transactions; etcd's default is 128.
    max_txn_ops: int = 2_048
    max_request_bytes: int = 1_572_864
    # None: etcd writes to stderr, which the supervisor sends to the member's log file.
    log_file: str | None = None
    log_level: str = "warn"
    metrics_url: str | None = None
    # HTTP apart from gRPC, so that a flood of one cannot starve the other; left out where etcd cannot.
    client_http_url: str | None = None
    # Bookmarks on idle watches; etcd's default is 10 minutes.
    progress_notify_s: int = 2
    # The leader compares the members' hashes after each compaction and raises an alarm when they differ.
    compact_hash_check: bool = True
    client_tls: TlsFiles | None = None
    peer_tls: TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class _Flag:
    """One flag, and the versions that have it: `since` <= version < `before`."""

    name: str
    value: str
    since: Version = _FIRST
    before: Version = _LAST


def build_argv(binary: str, version: Version, config: MemberConfig) -> list[str]:
    """Return the member's command line: `binary`, then `--flag=value` for each flag that `version` has."""
    flags = (flag for flag in _flags(config) if flag.since <= version < flag.before)
    return [binary, *(f"--{flag.name}={flag.value}" for flag in flags)]


def gateway_url(config: MemberConfig, version: Version) -> str:
    """Return where this member's HTTP API (gateway, health) answers."""
    if config.client_http_url and version >= _HTTP_LISTENER_SINCE:
        return config.client_http_url
    return config.client_url


def effective(argv: list[str]) -> list[str]:
    """Return `argv` without the flags that a member with a write-ahead log ignores.

    A running member was started rightly for today's settings exactly when these agree.
    """
    return [arg for arg in argv if not arg.startswith(_BOOTSTRAP_FLAGS)]


def _flags(config: MemberConfig) -> Iterator[_Flag]:
    yield from _cluster_flags(config)
    yield from _listener_flags(config)
    yield from _limit_flags(config)
    yield from _renamed_flags(config)


def _cluster_flags(config: MemberConfig) -> Iterator[_Flag]:
    yield _Flag("name", config.name)
    yield _Flag("data-dir", config.data_dir)
    yield _Flag("initial-advertise-peer-urls", config.peer_advertise_url)
    yield _Flag("initial-cluster", ",".join(f"{name}={url}" for name, url in config.initial_cluster))
    yield _Flag("initial-cluster-state", config.initial_cluster_state)
    yield _Flag("initial-cluster-token", config.cluster_token)
    yield _Flag("strict-reconfig-check", "true")
    yield _Flag("pre-vote", "true")
    yield _Flag("heartbeat-interval", str(config.heartbeat_ms))
    yield _Flag("election-timeout", str(config.election_ms))


def _listener_flags(config: MemberConfig) -> Iterator[_Flag]:
    yield _Flag("listen-peer-urls", config.peer_listen_url)
    yield _Flag("listen-client-urls", config.client_url)
    yield _Flag("advertise-client-urls", config.client_url)
    if config.client_http_url:
        yield _Flag("listen-client-http-urls", config.client_http_url, since=_HTTP_LISTENER_SINCE)
    if config.metrics_url:
        yield _Flag("listen-metrics-urls", config.metrics_url)
    yield from _tls_flags("", "client-cert-auth", config.client_tls)
    yield from _tls_flags("peer-", "peer-client-cert-auth", config.peer_tls)


def _tls_flags(prefix: str, auth_flag: str, tls: TlsFiles | None) -> Iterator[_Flag]:
    if tls:
        yield _Flag(f"{prefix}cert-file", tls.cert_file)
        yield _Flag(f"{prefix}key-file", tls.key_file)
        yield _Flag(f"{prefix}trusted-ca-file", tls.ca_file)
        yield _Flag(auth_flag, "true")
        if tls.client_cert_file:
            yield _Flag(f"{prefix}client-cert-file", tls.client_cert_file, since=Version(3, 5, 0))
            yield _Flag(f"{prefix}client-key-file", tls.key_file, since=Version(3, 5, 0))


def _limit_flags(config: MemberConfig) -> Iterator[_Flag]:
    yield _Flag("quota-backend-bytes", str(config.quota_bytes))
    # 3.6 keeps 10,000 by default and calls the flag deprecated; 3.7 is announced to drop it.
    yield _Flag("snapshot-count", str(config.snapshot_count), before=Version(3, 7, 0))
    yield _Flag("auto-compaction-mode", "periodic")
    yield _Flag("auto-compaction-retention", config.auto_compaction_retention)
    yield _Flag("max-txn-ops", str(config.max_txn_ops))
    yield _Flag("max-request-bytes", str(config.max_request_bytes))
    # Until 3.5 the default logger ignores the level and writes no JSON.
    yield _Flag("logger", "zap", before=Version(3, 5, 0))
    yield _Flag("log-level", config.log_level)
    yield _Flag("log-outputs", config.log_file or "stderr")


def _renamed_flags(config: MemberConfig) -> Iterator[_Flag]:
    notify = f"{config.progress_notify_s}s"
    v34, v35, v36 = Version(3, 4, 22), Version(3, 5, 13), Version(3, 6, 0)
    yield _Flag("experimental-watch-progress-notify-interval", notify, since=v34, before=v36)
    yield _Flag("watch-progress-notify-interval", notify, since=v36)
    if config.compact_hash_check:
        yield _Flag("experimental-compact-hash-check-enabled", "true", since=v35, before=v36)
        yield _Flag("feature-gates", "CompactHashCheck=true", since=v36)
