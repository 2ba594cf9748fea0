"""The real stack: compose/docker-compose-ha.yml on a Docker engine, seen as its users see it.

Coordinators are asked by `cloudless` over the published ports, each alone (its commands, run in this process, since
starting Python hundreds of times would take longer than all else); their metrics over HTTPS
with the certificate of the person who has signed in; etcd by its own etcdctl, inside. What is stopped, cut off and
counted is stopped, cut off and counted by Docker.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from cloudless.cli.main import cli
from tests.architecture.tree import ROOT
from tests.cluster.docker_cli import Docker
from tests.cluster.stack import Container, EtcdView, NodeSeen, Sight, TaskSeen, Unreachable

FILES = {"cloudless-ha": ROOT / "compose/docker-compose-ha.yml", "cloudless": ROOT / "compose/docker-compose.yml"}
HA = "cloudless-ha"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"

COORDINATORS = ("coordinator-1", "coordinator-2", "coordinator-3")
AGENTS = ("agent-1", "agent-2", "agent-3")
API_PORT = {"coordinator-1": 8080, "coordinator-2": 8082, "coordinator-3": 8084}
METRICS_PORT = {"coordinator-1": 9090, "coordinator-2": 9091, "coordinator-3": 9092}
ENROL_PORT = {"coordinator-1": 8070, "coordinator-2": 8071, "coordinator-3": 8072}
ADDRESS = {"coordinator-1": "0.10", "coordinator-2": "0.11", "coordinator-3": "0.12"}

UP_S = 300.0
DOWN_S = 120.0
EXEC_S = 20.0
CLI_S = 5.0
METRICS_S = 2.0
NAMESPACE = "ha-test"
PERSON = "ha-test"
VALUE = "ha-test-value"
PLAIN_METRIC = re.compile(r"^cloudless_coordinator_(?P<name>\w+) (?P<value>\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Placing:
    """Where the stack is: the files made for this run, the first half of the addresses, files laid over the stack's."""

    work: Path
    log: Path
    net: str = "172.28"
    overrides: tuple[Path, ...] = ()


class ComposeStack:
    """See `stack.Stack`."""

    coordinators = COORDINATORS
    agents = AGENTS

    def __init__(self, placing: Placing, environ: Mapping[str, str] = os.environ) -> None:
        self._placing = placing
        self._config = placing.work / "config"
        kept = {name: value for name, value in environ.items() if not name.startswith("CLOUDLESS_")}
        self._docker = Docker(placing.log, kept)
        self._known: tuple[str, ...] = ()

    # --- its life ---

    def clear(self) -> None:
        for project in FILES:
            self._remove(project)

    def deploy(self) -> None:
        self._known = ()
        self._compose("up", "--detach", within_s=UP_S)

    def sign_in(self) -> None:
        if (self._config / "contexts.json").exists():
            return
        first = self.coordinators[0]
        made = self._exec(first, "cloudless", "token", "create", "--role", "operator", "--name", PERSON, "-o", "json")
        joining = [word for port in ENROL_PORT.values() for word in ("--join-address", f"127.0.0.1:{port}")]
        addresses = ",".join(f"127.0.0.1:{port}" for port in API_PORT.values())
        self._cloudless(
            "-c", addresses, "login", "--as", "ha-test", "--name", PERSON, *joining,
            secret={"CLOUDLESS_LOGIN_TOKEN": json.loads(made)["token"]},
        )  # fmt: skip

    def remove(self) -> list[str]:
        self._remove(HA)
        label = f"{PROJECT_LABEL}={HA}"
        return [
            f"{kind} {name}"
            for kind in ("container", "volume", "network")
            for name in self._docker.list_labelled(kind, label)
        ]

    def _remove(self, project: str) -> None:
        self._compose("--profile", "*", "down", "--volumes", "--remove-orphans", project=project, within_s=DOWN_S)

    def stop(self, service: str) -> None:
        self._compose("stop", service)

    def kill(self, service: str) -> None:
        self._compose("kill", "--signal", "KILL", service)

    def start(self, service: str) -> None:
        self._compose("start", service)

    def cut(self, service: str) -> None:
        self._docker.run("network", "disconnect", "--force", f"{HA}_cloudless", _name_of(service))

    def mend(self, service: str) -> None:
        address = f"{self._placing.net}.{ADDRESS[service]}"
        words = ("network", "connect", "--ip", address, "--alias", service)
        self._docker.run(*words, f"{HA}_cloudless", _name_of(service))

    def collect_logs(self, file: Path) -> None:
        file.write_text(self._compose("logs", "--no-color", "--timestamps"), encoding="utf-8")

    # --- what the engine says ---

    def containers(self) -> Mapping[str, Container]:
        try:
            rows = self._docker.inspect(*self._known)
        except Unreachable:  # one of them was removed
            rows = []
        if not rows:
            self._known = tuple(self._docker.list_labelled("container", f"{PROJECT_LABEL}={HA}"))
            rows = self._docker.inspect(*self._known)
        return {row["Config"]["Labels"][SERVICE_LABEL]: _to_container(row) for row in rows}

    # --- what coordinators and their etcds say ---

    def sight(self, coordinator: str) -> Sight:
        header = self._ask(coordinator, "cluster", "status")["header"]
        return Sight(
            coordinator_id=header["coordinatorId"],
            cluster_id=header["clusterId"],
            leader_id=header["leaderId"],
            term=header["term"],
        )

    def voters(self, coordinator: str) -> frozenset[str]:
        members = self._ask(coordinator, "cluster", "members")
        return frozenset(member["name"] for member in members if member["started"] and not member["learner"])

    def etcd_view(self, coordinator: str) -> EtcdView:
        files = "/var/lib/cloudless/identity/etcd"
        said = self._exec(
            coordinator, "etcdctl", "--endpoints=https://127.0.0.1:2379", f"--cacert={files}/client-roots.pem",
            f"--cert={files}/client.pem", f"--key={files}/etcd.key", "member", "list", "--write-out=json",
        )  # fmt: skip
        told = json.loads(said)
        learners = frozenset(member["name"] for member in told["members"] if member.get("isLearner"))
        names = frozenset(member.get("name", "") for member in told["members"])
        return EtcdView(f"{told['header']['cluster_id']:x}", names - learners, learners)

    def metrics(self, coordinator: str, *, inside: bool = False) -> Mapping[str, float]:
        text = self._exec(coordinator, "cloudless-probe", "metrics") if inside else self._scrape(coordinator)
        return {match["name"]: float(match["value"]) for match in PLAIN_METRIC.finditer(text)}

    def digests_differ(self) -> str:
        addresses = ",".join(f"127.0.0.1:{API_PORT[name]}" for name in self.coordinators)
        self._cloudless("--context", "ha-test", "-c", addresses, "cluster", "digest")
        return ""

    def _scrape(self, coordinator: str) -> str:
        identity = self._config / "contexts/ha-test"
        try:
            context = ssl.create_default_context(cafile=str(identity / "roots.pem"))
            context.load_cert_chain(identity / "identity.pem")
            connection = http.client.HTTPConnection("127.0.0.1", METRICS_PORT[coordinator], timeout=METRICS_S)
            connection.connect()
            name = f"{coordinator}.coordinator.cloudless"
            connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
            connection.request("GET", "/metrics", headers={"Connection": "close"})
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the metrics of {coordinator} do not answer: {error}") from error
        if answer.status != http.client.OK:
            raise Unreachable(f"the metrics of {coordinator} answer with {answer.status}")
        return text

    # --- what is written and runs ---

    def write(self, coordinator: str, name: str, number: int) -> None:
        self._apply(coordinator, name, {"replicas": 0, "command": ["true"]}, {VALUE: str(number)})

    def read(self, coordinator: str) -> Mapping[str, int]:
        found = self._ask(coordinator, "-n", NAMESPACE, "--consistency", "stale", "workload", "list")
        records = [row["record"] for row in found]
        return {r["name"]: int(r["annotations"][VALUE]) for r in records if VALUE in r["annotations"]}

    def run_tasks(self, coordinator: str, replicas: int) -> None:
        spec = {
            "replicas": replicas,
            "command": ["sleep", "infinity"],
            "placement": {"antiAffinity": {"workloads": {"required": [{"workload": "tasks", "topology": "node"}]}}},
        }
        self._apply(coordinator, "tasks", spec, {})

    def tasks(self, coordinator: str) -> Mapping[str, TaskSeen]:
        found = self._ask(coordinator, "-n", NAMESPACE, "task", "list", "-w", "tasks")
        return {row["desired"]["id"]: _to_task(row) for row in found}

    def nodes(self, coordinator: str) -> Mapping[str, NodeSeen]:
        return {row["id"]: _to_node(row) for row in self._ask(coordinator, "node", "list")}

    def has_session(self, agent: str) -> bool:
        self._exec(agent, "cloudless-probe")
        return True

    def _apply(self, coordinator: str, name: str, spec: dict[str, Any], annotations: dict[str, str]) -> None:
        metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
        manifest = {"apiVersion": "cloudless/v1", "kind": "Workload", "metadata": metadata}
        manifest["spec"] = {"executor": "process", "stopGrace": "1s", **spec}
        self._at(coordinator, "workload", "apply", "-f", "-", given=json.dumps(manifest))

    # --- how it is asked ---

    def _ask(self, coordinator: str, *words: str) -> Any:
        """Return a command's answer, asked of one coordinator alone."""
        return json.loads(self._at(coordinator, *words, "-o", "json"))

    def _at(self, coordinator: str, *words: str, given: str = "") -> str:
        address = f"127.0.0.1:{API_PORT[coordinator]}"
        return self._cloudless("--context", "ha-test", "-c", address, "--timeout", f"{CLI_S:g}", *words, given=given)

    def _cloudless(self, *words: str, given: str = "", secret: Mapping[str, str] | None = None) -> str:
        # What a person has set for own contexts is no part of this: CliRunner takes a name out whose value is None.
        foreign = {name: None for name in os.environ if name.startswith("CLOUDLESS_")}
        environ = {**foreign, "CLOUDLESS_CONFIG": str(self._config), **(secret or {})}
        begun_s = time.monotonic()
        done = CliRunner().invoke(cli, words, input=given, env=environ)
        took = f"{time.monotonic() - begun_s:.2f} s, exit {done.exit_code}"
        with self._placing.log.open("a", encoding="utf-8") as file:
            print(f"{time.strftime('%H:%M:%S')} {took}: cloudless {' '.join(words)}", file=file)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if done.exit_code:
            said = " ".join(done.stderr.split()) or f"exit {done.exit_code}"
            raise Unreachable(f"`cloudless {' '.join(words[4:])}`: {said}")
        return done.stdout

    def _exec(self, service: str, *words: str) -> str:
        return self._docker.run("exec", _name_of(service), *words, within_s=EXEC_S)

    def _compose(self, *words: str, project: str = HA, within_s: float = 60.0) -> str:
        files = (FILES[project], *(self._placing.overrides if project == HA else ()))
        return self._docker.run("compose", *(f"--file={file}" for file in files), *words, within_s=within_s)


def _name_of(service: str) -> str:
    """Return the name that compose gives a service's container."""
    return f"{HA}-{service}-1"


def _to_container(row: dict[str, Any]) -> Container:
    state = row["State"]
    return Container(
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=state["ExitCode"],
        restarts=row["RestartCount"],
    )


def _to_task(row: dict[str, Any]) -> TaskSeen:
    observed = row["observed"] or {}
    return TaskSeen(
        node=row["desired"]["nodeId"],
        attempt=observed.get("attempt", 0),
        restarts=observed.get("restarts", 0),
        pid=observed.get("pid", 0),
        started_at_ms=observed.get("startedAtMs", 0),
        state=row["state"],
    )


def _to_node(row: dict[str, Any]) -> NodeSeen:
    info, capacity = row["info"] or {}, (row["info"] or {}).get("capacity") or {}
    amounts = tuple(capacity.get(name, 0) for name in ("cpuMillicores", "memoryMb", "storageMb", "bandwidthMbps"))
    return NodeSeen(row["phase"], info.get("zone", ""), info.get("type", ""), amounts)  # type: ignore[arg-type]
