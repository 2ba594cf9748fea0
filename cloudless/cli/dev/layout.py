"""What a dev cluster consists of: names, ports, capacities, directories and the environment of each process.

::

    coordinator-N   gRPC 8080 + 2(N-1)   HTTP 8081 + 2(N-1)   metrics 9089+N   raft 3009+N   etcd client 3019+N
                    enrolment 8069+N (with TLS only)   names (DNS) 8052+N
    agent-N         gRPC 8090 + N                             metrics 9100+N

`--port-offset` is added to every port, so that several clusters fit on one machine. Pure: starts nothing.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cloudless

HOST = "127.0.0.1"
DEFAULT_STATE_DIR = Path(".cloudless/dev")
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
# How to log and trace is passed on: a cluster on one machine is where that is tried.
_TELLING = ("LOG_FORMAT", "OTLP_ENDPOINT", "TRACE_RATIO")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorPlan:
    """One coordinator; ports are absolute."""

    name: str
    api_port: int
    http_port: int
    metrics_port: int
    raft_port: int
    etcd_port: int
    enrol_port: int
    dns_port: int

    @property
    def ports(self) -> dict[str, int]:
        return {
            "api": self.api_port,
            "http": self.http_port,
            "metrics": self.metrics_port,
            "raft": self.raft_port,
            "etcd": self.etcd_port,
            "enrol": self.enrol_port,
            "dns": self.dns_port,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlan:
    """One agent; capacity as its node offers it."""

    name: str
    api_port: int
    metrics_port: int
    zone: str
    type: str
    cpu_cores: int
    memory_mb: int
    storage_gb: int
    bandwidth_mbps: int

    @property
    def ports(self) -> dict[str, int]:
        return {"api": self.api_port, "metrics": self.metrics_port}


Plan = CoordinatorPlan | AgentPlan

#  zone      type      cores  MB    GB  Mbps
_AGENTS = (
    ("zone-a", "server", 2, 2048, 10, 100),
    ("zone-b", "server", 4, 4096, 20, 200),
    ("zone-a", "edge", 1, 1024, 5, 50),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole cluster under `state_dir`. Without `tls` everything is plain, for loopback only."""

    state_dir: Path
    port_offset: int
    coordinators: tuple[CoordinatorPlan, ...]
    agents: tuple[AgentPlan, ...]
    tls: bool = False

    @property
    def plans(self) -> tuple[Plan, ...]:
        return (*self.coordinators, *self.agents)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(plan.name for plan in self.plans)

    @property
    def api_addresses(self) -> tuple[str, ...]:
        """Return the addresses a client is given."""
        return tuple(f"{HOST}:{c.api_port}" for c in self.coordinators)

    @property
    def enrol_addresses(self) -> tuple[str, ...]:
        return tuple(f"{HOST}:{c.enrol_port}" for c in self.coordinators)

    @property
    def founding_file(self) -> Path:
        """What its coordinators begin with; there as long as the cluster is one with TLS."""
        return self.state_dir / "founding"

    @property
    def admin_dir(self) -> Path:
        """What the person who started it is known by: a context and an identity."""
        return self.state_dir / "admin"

    def token_file(self, name: str) -> Path:
        return self.state_dir / name / "token"

    def command(self, words: str) -> str:
        """Return `cloudless dev WORDS` as it has to be typed here to mean this cluster."""
        flag = (
            "" if self.state_dir == DEFAULT_STATE_DIR.resolve() else f" --state-dir {shlex.quote(str(self.state_dir))}"
        )
        return f"cloudless dev {words}{flag}"

    @property
    def record_file(self) -> Path:
        return self.state_dir / "state.json"

    @property
    def ports_file(self) -> Path:
        """Return the file that remembers the port offset for as long as there is data: members know their ports."""
        return self.state_dir / "port-offset"

    def plan(self, name: str) -> Plan:
        """Return the plan of `name`. Raises KeyError."""
        return {plan.name: plan for plan in self.plans}[name]

    def data_dir(self, name: str) -> Path:
        return self.state_dir / name / "data"

    def log_file(self, name: str) -> Path:
        return self.state_dir / name / f"{name}.log"

    def argv(self, name: str) -> list[str]:
        role = "coordinator" if isinstance(self.plan(name), CoordinatorPlan) else "agent"
        return [sys.executable, "-m", "cloudless.cli.main", role, "run"]

    def environment(self, name: str, environ: Mapping[str, str], etcd_binary: str) -> dict[str, str]:
        """Return the whole environment of process `name`: little of ours, and its settings."""
        plan = self.plan(name)
        settings = self._coordinator(plan, etcd_binary) if isinstance(plan, CoordinatorPlan) else self._agent(plan)
        settings |= {
            "TLS_ENABLED": "true" if self.tls else "false",
            "NODE_ID": name,
            "DATA_DIR": str(self.data_dir(name)),
            "LOG_LEVEL": "INFO",
        }
        settings |= {key: value for key in _TELLING if (value := environ.get(f"CLOUDLESS_{key}"))}
        return {**_kept(environ), **{f"CLOUDLESS_{key}": value for key, value in settings.items()}}

    def _coordinator(self, plan: CoordinatorPlan, etcd_binary: str) -> dict[str, str]:
        return {
            # Nobody is the chosen first one: whichever directory is lost, its owner finds the cluster again.
            "BOOTSTRAP_EXPECT": str(len(self.coordinators)),
            "RAFT_JOIN_ADDR": ",".join(self.api_addresses),
            "BIND_ADDR": f"{HOST}:{plan.api_port}",
            "ADVERTISE_ADDR": f"{HOST}:{plan.api_port}",
            "HTTP_ADDR": f"{HOST}:{plan.http_port}",
            "METRICS_ADDR": f"{HOST}:{plan.metrics_port}",
            "RAFT_ADDR": f"{HOST}:{plan.raft_port}",
            "ETCD_CLIENT_ADDR": f"{HOST}:{plan.etcd_port}",
            "ENROL_ADDR": f"{HOST}:{plan.enrol_port}",
            "DNS_ADDR": f"{HOST}:{plan.dns_port}",
            **({"FOUNDING_FILE": str(self.founding_file)} if self.tls else {}),
            **({"ETCD_BIN": etcd_binary} if etcd_binary else {}),
        }

    def _agent(self, plan: AgentPlan) -> dict[str, str]:
        return {
            "NODE_NAME": plan.name,
            "NODE_TYPE": plan.type,
            "COORDINATOR_ADDR": ",".join(self.api_addresses),
            "ENROL_AT": ",".join(self.enrol_addresses),
            **({"JOIN_TOKEN_FILE": str(self.token_file(plan.name))} if self.tls else {}),
            "AGENT_ADDR": f"{HOST}:{plan.api_port}",
            "METRICS_ADDR": f"{HOST}:{plan.metrics_port}",
            "REGION": "local",
            "ZONE": plan.zone,
            "CPU_CORES": str(plan.cpu_cores),
            "MEMORY_MB": str(plan.memory_mb),
            "STORAGE_GB": str(plan.storage_gb),
            "BANDWIDTH_MBPS": str(plan.bandwidth_mbps),
            # A laptop should be left as it was found; on a server tasks outlive their agent.
            "STOP_TASKS_ON_EXIT": "true",
        }


def build_layout(state_dir: Path, port_offset: int = 0, *, tls: bool = False) -> Layout:
    """Return the seed's cluster, with every port moved by `port_offset`."""
    coordinators = tuple(
        CoordinatorPlan(
            name=f"coordinator-{n + 1}",
            api_port=8080 + 2 * n + port_offset, http_port=8081 + 2 * n + port_offset,
            metrics_port=9090 + n + port_offset, raft_port=3010 + n + port_offset, etcd_port=3020 + n + port_offset,
            enrol_port=8070 + n + port_offset, dns_port=8053 + n + port_offset,
        )
        for n in range(3)
    )  # fmt: skip
    agents = tuple(
        AgentPlan(
            name=f"agent-{n}", api_port=8090 + n + port_offset, metrics_port=9100 + n + port_offset,
            zone=zone, type=kind, cpu_cores=cores, memory_mb=memory, storage_gb=storage, bandwidth_mbps=bandwidth,
        )
        for n, (zone, kind, cores, memory, storage, bandwidth) in enumerate(_AGENTS, 1)
    )  # fmt: skip
    return Layout(state_dir.resolve(), port_offset, coordinators, agents, tls)


def _kept(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in environ.items() if k in _KEPT_VARIABLES or k.startswith("XDG_")}
    root = Path(cloudless.__path__[0]).parent
    if not root.is_relative_to(sys.prefix):
        # Run from a checkout that is not installed: the children are started elsewhere and must find it.
        kept["PYTHONPATH"] = str(root)
    return kept
