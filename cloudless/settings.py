"""Settings from `CLOUDLESS_*` environment names: every name declared here once, with default and meaning.

An unknown name is an error that names the nearest known one, because a setting nobody reads is how an
earlier design ended with three separate clusters. All faults are reported together.
"""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudless.core.abilities import parse_capabilities, parse_labels
from cloudless.core.discovery.addresses import ANY_HOSTS, join_address, split_address
from cloudless.core.discovery.seeds import SeedKind, parse_dns_servers, parse_seed
from cloudless.core.model import Resources
from cloudless.core.setting_values import (
    ENROL_PORT,
    choice_reader,
    integer_reader,
    parse_address,
    read_boolean,
    read_cgroup_parent,
    read_cores,
    read_dns_domain,
    read_docker_host,
    read_enrol_addresses,
    read_name,
    read_origins,
    read_otlp_endpoint,
    read_ratio,
    read_seeds,
    read_text,
    seconds_reader,
)
from cloudless.errors import BadSettings, Problem

PREFIX = "CLOUDLESS_"
COORDINATOR_DATA_DIR = Path("/var/lib/cloudless")
AGENT_DATA_DIR = Path("/var/lib/cloudless-agent")
CGROUP_PARENT = "cloudless"
DETECT = -1
"""In place of an amount: what the machine shows."""
DOCKER_HOST = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """How one coordinator runs. Addresses are `host:port`.

    `advertise_address` is how others reach the API (default: the bind address with this host's name in
    place of a wildcard). `join_addresses` are seeds (`core.discovery.seeds`) that lead to other coordinators' API,
    each as text. `bootstrap_expect` is the number of coordinators to wait for when nobody is the chosen first one
    (0: not used). `dns_servers` (address, port) are asked in place of this machine's own. `rejoin` lets one whose
    member was removed from the cluster put its old data aside and join as a new one.
    `node_timeout_s` silent seconds make a node unreachable; at least three heartbeat periods. With more than 400
    nodes both are longer than set here (`core.orchestration.heartbeats`).
    `etcd_quota_mb` is the size of the store at which etcd refuses writes; users' are refused from nine tenths of it.
    `raise_priority`: the coordinator and its etcd go before other processes of a busy machine, where they may.
    `tls`: all connections prove both sides by certificates. What this node proves itself by is in `identity_dir`
    (default: `identity` in the data directory); `founding_file` is what founders of one cluster begin with. A
    coordinator that joins exchanges `join_token` (or what is in `join_token_file`) for an identity at one of
    `enrol_addresses` (seeds; default: where `join_addresses` lead, port 8070). Whoever has no certificate yet comes
    to its own `enrol_address`. `backup_key_file` holds the passphrase that backups are encrypted with (None: they are
    not).
    `dns_address`: where names of workloads are answered, over UDP and TCP ("": nowhere), to anybody who reaches it.
    They end in `dns_domain`; resolvers may keep an answer for `dns_ttl_s`. A coordinator whose state is older than
    `dns_stale_max_s`, because it is cut off from the others, refuses to answer.
    `log_format` is `human` or `json` (docs/logging.md). Traces go to `otlp_endpoint`, a URL ("": there are none); of
    new ones only the share `trace_ratio`, 0 to 1 (docs/tracing.md).
    `http_cors_origins`: web pages of other origins that may use the HTTP API from a browser; a page that should not be
    here acts with the certificate of whoever looks at it.
    """

    node_id: str
    bind_address: str = "0.0.0.0:8080"
    advertise_address: str = ""
    http_address: str = "0.0.0.0:8081"
    metrics_address: str = "0.0.0.0:9090"
    enrol_address: str = f"0.0.0.0:{ENROL_PORT}"
    raft_address: str = ""
    raft_bind_address: str = ""
    etcd_client_address: str = "127.0.0.1:2379"
    bootstrap: bool = False
    bootstrap_expect: int = 0
    join_addresses: tuple[str, ...] = ()
    dns_servers: tuple[tuple[str, int], ...] = ()
    rejoin: bool = False
    data_dir: Path = COORDINATOR_DATA_DIR
    log_level: str = "INFO"
    log_format: str = "human"
    otlp_endpoint: str = ""
    trace_ratio: float = 1.0
    profile: str = "default"
    allow_degraded_etcd: bool = False
    etcd_quota_mb: int = 2048
    raise_priority: bool = True
    heartbeat_period_s: float = 1.0
    node_timeout_s: float = 4.0
    backup_key_file: Path | None = None
    tls: bool = True
    identity_dir: Path = COORDINATOR_DATA_DIR / "identity"
    founding_file: Path | None = None
    join_token: str = field(default="", repr=False)
    join_token_file: Path | None = None
    enrol_addresses: tuple[str, ...] = ()
    dns_address: str = ""
    dns_domain: str = "cloudless"
    dns_ttl_s: int = 5
    dns_stale_max_s: float = 30.0
    http_cors_origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How one agent runs. `coordinators` are seeds, as text.

    `capacity` counts instead of what the machine shows, where it is not DETECT. `labels` come beside those that the
    agent finds itself, and win; `capabilities` are names of the operator's own.

    `join_token` (or what is in `join_token_file`) is exchanged for an identity at the first start, at
    `enrol_addresses` (seeds; default: where the coordinators are, port 8070). TLS as for coordinators.
    `docker`: whether tasks may run as containers of the engine at `docker_host` (`unix:///path`): `auto` if there is
    one, `true` the same with a warning while there is none, `false` never.
    `cgroup_parent`: where tasks' control groups are made, a path below the mounted hierarchies (`none`: no groups, so
    no limits). Tasks that run while it is changed keep their groups until the machine restarts.
    `disk_reserve_mb`: with less left on the disk of `data_dir` nothing is started; what runs goes on.
    Logs and traces as for coordinators.
    """

    node_id: str
    node_name: str = ""
    node_type: str = "server"
    coordinators: tuple[str, ...] = ()
    dns_servers: tuple[tuple[str, int], ...] = ()
    listen_address: str = "0.0.0.0:8090"
    advertise_address: str = ""
    metrics_address: str = "0.0.0.0:9092"
    region: str = "local"
    zone: str = ""
    capacity: Resources = field(default_factory=Resources)
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    data_dir: Path = AGENT_DATA_DIR
    log_level: str = "INFO"
    log_format: str = "human"
    otlp_endpoint: str = ""
    trace_ratio: float = 1.0
    stop_tasks_on_exit: bool = False
    docker: str = "auto"
    docker_host: str = DOCKER_HOST
    cgroup_parent: str = CGROUP_PARENT
    disk_reserve_mb: int = 64
    join_token: str = field(default="", repr=False)
    join_token_file: Path | None = None
    enrol_addresses: tuple[str, ...] = ()
    tls: bool = True
    identity_dir: Path = AGENT_DATA_DIR / "identity"


# What coordinators and agents say of themselves; the command line traces as these say.
_TELLING: dict[str, tuple[str, Callable[[str], Any]]] = {
    "LOG_LEVEL": ("log_level", choice_reader("DEBUG", "INFO", "WARNING", "ERROR")),
    "LOG_FORMAT": ("log_format", choice_reader("human", "json")),
    "OTLP_ENDPOINT": ("otlp_endpoint", read_otlp_endpoint),
    "TRACE_RATIO": ("trace_ratio", read_ratio),
}

# environment name (without prefix)  →  (field, reader)
_COORDINATOR: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NODE_ID": ("node_id", read_name),
    "RAFT_ID": ("node_id", read_name),
    "BIND_ADDR": ("bind_address", parse_address),
    "ADVERTISE_ADDR": ("advertise_address", parse_address),
    "HTTP_ADDR": ("http_address", parse_address),
    "METRICS_ADDR": ("metrics_address", parse_address),
    "ENROL_ADDR": ("enrol_address", parse_address),
    "RAFT_ADDR": ("raft_address", parse_address),
    "RAFT_BIND_ADDR": ("raft_bind_address", parse_address),
    "ETCD_CLIENT_ADDR": ("etcd_client_address", parse_address),
    "BOOTSTRAP": ("bootstrap", read_boolean),
    "BOOTSTRAP_EXPECT": ("bootstrap_expect", integer_reader(1, 7)),
    "RAFT_JOIN_ADDR": ("join_addresses", read_seeds),
    "REJOIN": ("rejoin", read_boolean),
    "DNS_SERVER": ("dns_servers", parse_dns_servers),
    "DATA_DIR": ("data_dir", Path),
    **_TELLING,
    "PROFILE": ("profile", choice_reader("lan", "default", "wan", "slow-disk")),
    "ALLOW_DEGRADED_ETCD": ("allow_degraded_etcd", read_boolean),
    "ETCD_QUOTA_MB": ("etcd_quota_mb", integer_reader(16, 8192)),
    "RAISE_PRIORITY": ("raise_priority", read_boolean),
    "TLS_ENABLED": ("tls", read_boolean),
    "IDENTITY_DIR": ("identity_dir", Path),
    "FOUNDING_FILE": ("founding_file", Path),
    "JOIN_TOKEN": ("join_token", read_text),
    "JOIN_TOKEN_FILE": ("join_token_file", Path),
    "ENROL_AT": ("enrol_addresses", read_enrol_addresses),
    "HEARTBEAT_PERIOD": ("heartbeat_period_s", seconds_reader(0.1, 60)),
    "NODE_TIMEOUT": ("node_timeout_s", seconds_reader(0.3, 3600)),
    "DNS_ADDR": ("dns_address", parse_address),
    "DNS_DOMAIN": ("dns_domain", read_dns_domain),
    "DNS_TTL": ("dns_ttl_s", integer_reader(0, 3600)),
    "DNS_STALE_MAX": ("dns_stale_max_s", seconds_reader(1, 86_400)),
    "BACKUP_KEY_FILE": ("backup_key_file", Path),
    "HTTP_CORS_ORIGINS": ("http_cors_origins", read_origins),
}
_AGENT: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NODE_ID": ("node_id", read_name),
    "NODE_NAME": ("node_name", read_text),
    "NODE_TYPE": ("node_type", read_text),
    "COORDINATOR_ADDR": ("coordinators", read_seeds),
    "AGENT_ADDR": ("listen_address", parse_address),
    "ADVERTISE_ADDR": ("advertise_address", parse_address),
    "METRICS_ADDR": ("metrics_address", parse_address),
    "JOIN_TOKEN": ("join_token", read_text),
    "JOIN_TOKEN_FILE": ("join_token_file", Path),
    "ENROL_AT": ("enrol_addresses", read_enrol_addresses),
    "REGION": ("region", read_text),
    "ZONE": ("zone", read_text),
    "CPU_CORES": ("cpu_millicores", read_cores),
    "MEMORY_MB": ("memory_mb", integer_reader(0, 1 << 30)),
    "STORAGE_GB": ("storage_gb", integer_reader(0, 1 << 30)),
    "BANDWIDTH_MBPS": ("bandwidth_mbps", integer_reader(0, 1 << 30)),
    "GPUS": ("gpus", integer_reader(0, 1024)),
    "LABELS": ("labels", parse_labels),
    "CAPABILITIES": ("capabilities", parse_capabilities),
    "DNS_SERVER": ("dns_servers", parse_dns_servers),
    "DATA_DIR": ("data_dir", Path),
    **_TELLING,
    "TLS_ENABLED": ("tls", read_boolean),
    "IDENTITY_DIR": ("identity_dir", Path),
    "STOP_TASKS_ON_EXIT": ("stop_tasks_on_exit", read_boolean),
    "DOCKER_ENABLED": ("docker", choice_reader("auto", "true", "false")),
    "DOCKER_HOST": ("docker_host", read_docker_host),
    "DISK_RESERVE_MB": ("disk_reserve_mb", integer_reader(0, 1 << 20)),
    "CGROUP_PARENT": ("cgroup_parent", read_cgroup_parent),
}

# Read elsewhere: by the command line and by the finder of etcd.
_SHARED = frozenset(
    {
        "ALLOW_PLAIN_NETWORK",
        "COORDINATORS",
        "NAMESPACE",
        "CONTEXT",
        "CONFIG",
        "LOGIN_TOKEN",
        "ETCD_BIN",
        "ETCD_RELEASE_URL",
        "ETCD_RELEASE_SHA256",
    }
)

# Of a later version. Refused rather than ignored.
_NOT_YET = frozenset({"TLS_CERT", "TLS_KEY", "TLS_CA"})


def read_coordinator_settings(environ: Mapping[str, str] | None = None) -> CoordinatorSettings:
    """Return the coordinator's settings. Raises BadSettings with every fault found."""
    values, problems = _read(os.environ if environ is None else environ, _COORDINATOR, _AGENT)
    _require(values, problems, "node_id", "NODE_ID")
    if values.get("bootstrap") and values.get("bootstrap_expect"):
        problems.append(Problem("CLOUDLESS_BOOTSTRAP", "cannot be combined with CLOUDLESS_BOOTSTRAP_EXPECT"))
    expect = values.get("bootstrap_expect", 0)
    if expect and not _may_name(values.get("join_addresses", ()), expect):
        problems.append(
            Problem(
                "CLOUDLESS_RAFT_JOIN_ADDR",
                f"must list the {expect} coordinators that CLOUDLESS_BOOTSTRAP_EXPECT names, this one included, or "
                "give one name for them all (dns+NAME:PORT or srv+NAME)",
            )
        )
    period, timeout = values.get("heartbeat_period_s", 1.0), values.get("node_timeout_s", 4.0)
    timeout_min = round(3 * period, 6)  # three times 0.2 is a little more than 0.6
    if timeout < timeout_min:
        problems.append(
            Problem("CLOUDLESS_NODE_TIMEOUT", f"must be at least three heartbeat periods ({timeout_min:g} s)")
        )
    listening = {name: values.get(name, "0.0.0.0:0") for name in ("bind_address", "http_address", "metrics_address")}
    _require_loopback(values, problems, listening, os.environ if environ is None else environ)
    if problems:
        raise BadSettings(problems)
    _default_identity(values, COORDINATOR_DATA_DIR)
    bind = values.setdefault("bind_address", "0.0.0.0:8080")
    values["advertise_address"] = values.get("advertise_address") or _reachable(bind)
    values["raft_address"] = _reachable(values.get("raft_address") or "0.0.0.0:3000")
    values["raft_bind_address"] = values.get("raft_bind_address") or values["raft_address"]
    return CoordinatorSettings(**values)


def read_agent_settings(environ: Mapping[str, str] | None = None) -> AgentSettings:
    """Return the agent's settings. Raises BadSettings with every fault found."""
    values, problems = _read(os.environ if environ is None else environ, _AGENT, _COORDINATOR)
    _require(values, problems, "node_id", "NODE_ID")
    _require(values, problems, "coordinators", "COORDINATOR_ADDR")
    listening = {name: values.get(name, "0.0.0.0:0") for name in ("listen_address", "metrics_address")}
    _require_loopback(values, problems, listening, os.environ if environ is None else environ)
    if problems:
        raise BadSettings(problems)
    capacity = Resources(
        cpu_millicores=values.pop("cpu_millicores", DETECT),
        memory_mb=values.pop("memory_mb", DETECT),
        storage_mb=values.pop("storage_gb") * 1024 if "storage_gb" in values else DETECT,
        bandwidth_mbps=values.pop("bandwidth_mbps", DETECT),
        gpus=values.pop("gpus", DETECT),
    )
    _default_identity(values, AGENT_DATA_DIR)
    listen = values.setdefault("listen_address", "0.0.0.0:8090")
    values["advertise_address"] = values.get("advertise_address") or _reachable(listen)
    values["node_name"] = values.get("node_name") or values["node_id"]
    return AgentSettings(capacity=capacity, **values)


def read_trace_settings(environ: Mapping[str, str] | None = None) -> tuple[str, float]:
    """Return where the command line sends traces ("": nowhere) and the share of them. Raises BadSettings."""
    environ = os.environ if environ is None else environ
    asked = {name: environ[name] for name in (f"{PREFIX}OTLP_ENDPOINT", f"{PREFIX}TRACE_RATIO") if name in environ}
    values, problems = _read(asked, _TELLING, {})
    if problems:
        raise BadSettings(problems)
    return values.get("otlp_endpoint", ""), values.get("trace_ratio", 1.0)


def read_token(text: str, file: Path | None) -> str:
    """Return the token given as text or in a file, "" if none is given. Raises BadSettings."""
    if text or file is None:
        return text
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings([Problem("CLOUDLESS_JOIN_TOKEN_FILE", f"{file} cannot be read: {error}")]) from error


def _read(
    environ: Mapping[str, str], known: dict[str, tuple[str, Callable[[str], Any]]], others: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        short = name[len(PREFIX) :]
        if short in _NOT_YET:
            if environ[name].strip().lower() not in ("", "false", "0", "no"):
                problems.append(
                    Problem(name, "is not supported by this version: the cluster makes its own certificates")
                )
            continue
        if short not in known:
            if short not in others and short not in _SHARED:
                problems.append(Problem(name, _unknown(short, known)))
            continue
        target, read = known[short]
        try:
            value = read(environ[name].strip())
        except ValueError as error:
            problems.append(Problem(name, f"{error}, not {environ[name]!r}"))
            continue
        if target in values and values[target] != value:
            problems.append(Problem(name, f"contradicts another setting of {target.replace('_', ' ')}"))
        values[target] = value
    return values, problems


def find_unknown_settings(environ: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return the CLOUDLESS_ names that neither a coordinator, nor an agent, nor the command line knows."""
    known = {**_COORDINATOR, **_AGENT, **dict.fromkeys(_SHARED | _NOT_YET)}
    names = sorted(name[len(PREFIX) :] for name in environ if name.startswith(PREFIX))
    return tuple(Problem(PREFIX + short, _unknown(short, known)) for short in names if short not in known)


def _unknown(short: str, known: Mapping[str, Any]) -> str:
    nearest = difflib.get_close_matches(short, known, n=1, cutoff=0.6)
    return f"is not a known setting; did you mean {PREFIX}{nearest[0]}?" if nearest else "is not a known setting"


def _require(values: dict[str, Any], problems: list[Problem], target: str, short: str) -> None:
    if not values.get(target) and not any(problem.field == PREFIX + short for problem in problems):
        problems.append(Problem(PREFIX + short, "must be set"))


def _default_identity(values: dict[str, Any], data_dir: Path) -> None:
    values.setdefault("identity_dir", values.get("data_dir", data_dir) / "identity")


def _require_loopback(
    values: dict[str, Any], problems: list[Problem], listening: Mapping[str, str], environ: Mapping[str, str]
) -> None:
    """Refuse plain connections where others could reach them, unless told that nobody can."""
    if values.get("tls", True) or environ.get(f"{PREFIX}ALLOW_PLAIN_NETWORK", "").lower() in ("true", "1", "yes"):
        return
    open_to_others = [address for address in listening.values() if not _is_loopback(address)]
    if open_to_others:
        problems.append(
            Problem(
                "CLOUDLESS_TLS_ENABLED",
                f"may be false on loopback addresses only, not on {', '.join(sorted(set(open_to_others)))}; on a "
                "network that nobody else reaches set CLOUDLESS_ALLOW_PLAIN_NETWORK=true",
            )
        )


def _is_loopback(address: str) -> bool:
    host, _ = split_address(address)
    return host in ("localhost", "::1") or host.startswith("127.")


def _reachable(address: str) -> str:
    """Replace a wildcard host by this machine's name, which others may be able to resolve."""
    host, port = split_address(address)
    return join_address(socket.gethostname() if host in ANY_HOSTS else host, port)


def _may_name(seeds: tuple[str, ...], expect: int) -> bool:
    """Return whether seeds can stand for so many founders: addresses are counted, a name in DNS may stand for any."""
    if any(parse_seed(seed).kind in (SeedKind.DNS, SeedKind.SRV) for seed in seeds):
        return True
    return len(seeds) == expect
