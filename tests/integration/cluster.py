"""A cluster of real processes for tests: coordinators and agents on loopback, each with a directory of its own.

What a test says of it is what an operator could do: start, signal, stop and restart a process by name, empty its
directory, ask any coordinator. Nothing is waited for by sleeping: `until` polls with a deadline. `close` ends
everything by pid, the etcd of killed coordinators and the tasks of killed agents included.

A `Place` says where the processes live. `Loopback` is all on 127.0.0.1; the fault rig has one that gives each a
network of its own. What they and the test prove themselves by is for `trust` to say (see `trusted`); without one all
is plain.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from cloudless.adapters.etcd.admin import EtcdAdmin, HashKv, Member
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import DataState, judge_data
from cloudless.adapters.member.pidfile import Identity, find_orphan
from cloudless.adapters.subprocess.attempt import Attempt, State, end_leftovers
from cloudless.cli.client import Client
from cloudless.cli.dev.table import rss_mb, send
from cloudless.cli.methods import (
    APPLY_WORKLOAD,
    GET_DIGEST,
    GET_STATUS,
    LIST_NODES,
    LIST_TASKS,
    Method,
)
from cloudless.errors import CloudlessError, Unauthenticated
from cloudless.ports import Credentials, Delete, Get, Got, Put, Txn
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest, GetStatusRequest, GetStatusResponse
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_STALE, ReadOptions
from cloudless.rpc.v1.node_pb2 import ListNodesRequest
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, ApplyWorkloadResponse, ListTasksRequest, Task
from tests.architecture.tree import ROOT
from tests.integration.trusted import Plain

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

HOST = "127.0.0.1"
COORDINATORS = ("coordinator-1", "coordinator-2", "coordinator-3")
POLL_S = 0.05
EXIT_S = 20.0
TAIL_LINES = 40
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
_METRIC_PREFIX = "cloudless_coordinator_"
_given: set[int] = set()


class Place(Protocol):
    """Where the processes of a cluster live."""

    def host_of(self, name: str) -> str:
        """Return the address of a process, making its place if there is none yet."""
        ...

    def ports_of(self, name: str, *uses: str) -> dict[str, int]:
        """Return a port of that place for each use."""
        ...

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        """Return the command that becomes `argv` at that place, in the same process."""
        ...


class Loopback:
    """All on one address of this machine, told apart by ports that were free just now."""

    def host_of(self, name: str) -> str:
        return HOST

    def ports_of(self, name: str, *uses: str) -> dict[str, int]:
        return dict(zip(uses, free_ports(len(uses)), strict=True))

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        return argv


@dataclass
class Process:
    """One process of the cluster: its settings (without the CLOUDLESS_ prefix), its ports, its present life.

    `tree`: the directory whose package it runs from its next start on.
    """

    name: str
    role: str
    host: str
    ports: dict[str, int]
    settings: dict[str, str]
    log: Path
    data_dir: Path
    popen: subprocess.Popen[bytes] | None = None
    tree: Path = ROOT

    @property
    def lives(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def address(self, use: str = "api") -> str:
        return f"{self.host}:{self.ports[use]}"


@dataclass
class LocalCluster:
    """All processes of one test. `etcd_binary` is found once a session."""

    root: Path
    etcd_binary: Path
    place: Place = field(default_factory=Loopback)
    trust: Plain = field(default_factory=Plain)
    processes: dict[str, Process] = field(default_factory=dict)
    _clients: dict[tuple[str, ...], Client] = field(default_factory=dict)
    _shown: Credentials | None = None

    # --- what there is ---

    def add_coordinators(self, names: Iterable[str] = COORDINATORS) -> None:
        """Declare coordinators that are told nothing yet of each other; see `found_together`, `bootstrap_with`."""
        for name in names:
            process = self._declare("coordinator", name, "api", "http", "metrics", "raft", "etcd", "enrol")
            process.settings |= {
                "BIND_ADDR": process.address(),
                "HTTP_ADDR": process.address("http"),
                "METRICS_ADDR": process.address("metrics"),
                "RAFT_ADDR": process.address("raft"),
                "ETCD_CLIENT_ADDR": process.address("etcd"),
                "ENROL_ADDR": process.address("enrol"),
                "ETCD_BIN": str(self.etcd_binary),
            }

    def found_together(self) -> None:
        """Give all coordinators the same list and no chosen first one."""
        for process in self.coordinators:
            process.settings |= {
                "BOOTSTRAP_EXPECT": str(len(self.coordinators)),
                "RAFT_JOIN_ADDR": ",".join(self.api_addresses()),
            }

    def bootstrap_with(self, first: str) -> None:
        """Make `first` the one that founds; the others join through it."""
        for process in self.coordinators:
            founds = process.name == first
            process.settings |= {"BOOTSTRAP": "true"} if founds else {"RAFT_JOIN_ADDR": self.processes[first].address()}

    def add_agent(self, name: str, *, zone: str = "zone-a", cpu_cores: int = 2) -> None:
        process = self._declare("agent", name, "api", "metrics")
        process.settings |= {
            "COORDINATOR_ADDR": ",".join(self.api_addresses()),
            "AGENT_ADDR": process.address(),
            "METRICS_ADDR": process.address("metrics"),
            "ZONE": zone,
            "CPU_CORES": str(cpu_cores),
            "MEMORY_MB": "1024",
            "STORAGE_GB": "10",
            "BANDWIDTH_MBPS": "100",
            # The engine of the machine that tests run on is none of theirs.
            "DOCKER_ENABLED": "false",
        }

    def add_twin(self, name: str, of: str, **settings: str) -> Process:
        """Declare a coordinator like `of` but on ports and in a directory of its own, except for `settings`."""
        original = self.processes[of]
        self.add_coordinators([name])
        twin = self.processes[name]
        twin.settings = original.settings | twin.settings | settings
        return twin

    def _declare(self, role: str, name: str, *uses: str) -> Process:
        home = self.root / name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {"NODE_ID": name, "DATA_DIR": str(home / "data"), "LOG_LEVEL": "DEBUG"} | self.trust.settings
        host, ports = self.place.host_of(name), self.place.ports_of(name, *uses)
        self.processes[name] = Process(name, role, host, ports, settings, home / f"{name}.log", home / "data")
        return self.processes[name]

    @property
    def coordinators(self) -> list[Process]:
        return [process for process in self.processes.values() if process.role == "coordinator"]

    @property
    def agents(self) -> list[Process]:
        return [process for process in self.processes.values() if process.role == "agent"]

    def api_addresses(self) -> list[str]:
        return [process.address() for process in self.coordinators]

    def datadir(self, name: str) -> DataDir:
        return DataDir(self.processes[name].data_dir)

    def has_formed(self, name: str) -> bool:
        """Return whether a member of etcd has ever been started in this coordinator's directory."""
        return judge_data(self.datadir(name)) in (DataState.FORMING, DataState.PRESENT)

    # --- starting and ending ---

    def start(self, *names: str) -> None:
        """Start processes one after the other; each that nobody knows yet is let in, which may wait for the cluster."""
        for name in names:
            process = self.processes[name]
            assert not process.lives, f"{name} runs already"
            self.trust.prepare(process, self.coordinators)
            environment = {k: v for k, v in os.environ.items() if k in _KEPT_VARIABLES or k.startswith("XDG_")}
            environment |= {f"CLOUDLESS_{key}": value for key, value in process.settings.items()}
            with process.log.open("ab") as log:
                process.popen = subprocess.Popen(
                    self.place.command_at(name, [sys.executable, "-m", "cloudless.cli.main", process.role, "run"]),
                    env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    cwd=process.tree,
                )  # fmt: skip

    def start_listening(self, name: str) -> None:
        """Start a coordinator and return once it can be asked, whether or not it belongs to a cluster."""
        self.start(name)
        self.until(lambda: self.http(name, "/livez") == 200, f"{name} listens")

    def signal(self, name: str, number: signal.Signals) -> None:
        process = self.processes[name]
        assert process.popen is not None
        process.popen.send_signal(number)

    def etcd_of(self, name: str) -> Identity | None:
        """Return the etcd that runs for a coordinator, whoever is its parent now."""
        datadir = self.datadir(name)
        return find_orphan(datadir.pidfile, str(datadir.etcd_dir))

    def kill(self, *names: str, etcd: bool = False) -> None:
        """Kill processes at once, then reap them; `etcd`: the coordinators' etcd with them, as if the host died."""
        children = [self.etcd_of(name) for name in names] if etcd else []
        for name in names:
            self.signal(name, signal.SIGKILL)
        for child in children:
            if child is not None:
                send(child, signal.SIGKILL)
        for name in names:
            self.exit_of(name)

    def stop(self, *names: str) -> None:
        """Ask processes to end, all at the same time; each must end cleanly."""
        for name in names:
            self.signal(name, signal.SIGTERM)
        for name in names:
            code, said = self.exit_of(name)
            assert code == 0, f"{name} ended with {code}:\n{said}"

    def exit_of(self, name: str, timeout_s: float = EXIT_S) -> tuple[int, str]:
        """Wait until a process has ended; return its code and the end of its log."""
        process = self.processes[name]
        assert process.popen is not None
        try:
            code = process.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{name} still runs after {timeout_s} s\n{self.tail(name)}") from error
        return code, self.tail(name)

    def empty(self, name: str, *, only_etcd: bool = False) -> None:
        """Delete a stopped coordinator's data: all of it, or only etcd's own directory."""
        assert not self.processes[name].lives
        path = self.processes[name].data_dir
        shutil.rmtree(path / "etcd" if only_etcd else path)

    def close(self) -> None:
        """End everything this cluster ever started."""
        self.forget_clients()
        self.trust.close()
        for process in self.processes.values():
            if process.lives:
                process.popen.kill()  # type: ignore[union-attr]
        for process in self.processes.values():
            if process.popen is not None:
                process.popen.wait(EXIT_S)
        for process in self.coordinators:
            if process.data_dir.exists() and (etcd := self.etcd_of(process.name)):
                send(etcd, signal.SIGKILL)
        for process in self.agents:
            self.kill_tasks(process.name)

    def kill_tasks(self, agent: str) -> None:
        """Kill the supervisors of an agent's tasks and all that they had started."""
        for task_id, state in self._attempts(agent):
            if state.lives():
                with suppress(ProcessLookupError):
                    os.kill(state.shim_pid, signal.SIGKILL)
            end_leftovers(task_id, state)

    def task_pids(self, agent: str) -> set[int]:
        """Return the supervisors of an agent's tasks and the processes they started."""
        return {pid for _, state in self._attempts(agent) for pid in (state.shim_pid, state.pid)}

    def _attempts(self, agent: str) -> Iterator[tuple[str, State]]:
        for path in sorted(self.processes[agent].data_dir.glob("**/tasks/*/*/state.json")):
            task_id = path.parent.parent.name
            state = Attempt(path.parent, task_id, 0).read_state()
            if state is not None and not (path.parent / "exit.json").exists():
                yield task_id, state

    # --- looking ---

    def tail(self, name: str, lines: int = TAIL_LINES) -> str:
        log = self.processes[name].log
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def tails(self) -> list[tuple[str, str]]:
        """Return the end of every log, for a failed test's report."""
        return [(name, self.tail(name)) for name in self.processes]

    def until(self, look: Callable[[], T | None], what: str, timeout_s: float = 30.0) -> T:
        """Poll until `look` returns something true and return that; a coordinator's "not now" is looked past."""
        deadline_s = time.monotonic() + timeout_s
        seen: object = None
        while True:
            try:
                found = look()
                if found:
                    return found
                seen = found
            except (CloudlessError, OSError) as error:
                if isinstance(error, CloudlessError) and not error.retryable:
                    raise
                seen = error
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{what}: not within {timeout_s} s; last seen: {seen!r}")
            time.sleep(POLL_S)

    def http(self, name: str, path: str, timeout_s: float = 2.0) -> int:
        """Return the status a coordinator answers over HTTP, 0 if it does not answer."""
        try:
            with self._open_url(f"{self.processes[name].address('http')}{path}", timeout_s) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_http(self, name: str, path: str, status: int, timeout_s: float = 30.0) -> None:
        self.until(lambda: self.http(name, path) == status, f"{name} answers {status} at {path}", timeout_s)

    def metric(self, name: str, metric: str) -> float:
        """Return the sum of a metric's samples (`name` or `name{label`), 0 if there is none."""
        lines = self.metrics_text(name).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_METRIC_PREFIX + metric))

    def metrics_text(self, name: str) -> str:
        """Return all metrics of a coordinator or an agent as they are scraped."""
        with self._open_url(f"{self.processes[name].address('metrics')}/metrics", 2.0) as answer:
            return str(answer.read().decode())

    def _open_url(self, where: str, timeout_s: float) -> Any:
        return urllib.request.urlopen(f"{self.trust.scheme}://{where}", timeout=timeout_s, context=self.trust.web())

    def asked(self, name: str, method: str) -> float:
        """Return how many calls of a method (`ClusterService/GetFormation`) a coordinator has answered."""
        return self.metric(name, f'requests_total{{method="cloudless.rpc.v1.{method}"')

    def rss_mb(self, name: str) -> float:
        return rss_mb(self.processes[name].pid)

    # --- asking ---

    def client(self, *names: str) -> Client:
        """Return the main thread's client of the named coordinators, of all if none is named."""
        chosen = names or tuple(process.name for process in self.coordinators)
        shown = self.credentials()
        if shown is not self._shown:  # renewed: a connection that is lost could not be made again with the old ones
            self.forget_clients()
            self._shown = shown
        if chosen not in self._clients:
            self._clients[chosen] = self.new_client(*chosen)
        return self._clients[chosen]

    def new_client(self, *names: str) -> Client:
        """Return a client for another thread; the caller closes it."""
        chosen = [self.processes[name] for name in names] or self.coordinators
        return Client([process.address() for process in chosen], 10.0, self.credentials())

    def credentials(self) -> Credentials | None:
        """Return what the test proves itself by now."""
        return self.trust.credentials() if self.trust.credentials else None

    @property
    def dialler(self) -> Dialler:
        """What opens channels as the test."""
        return Dialler(self.trust.credentials)

    def forget_clients(self) -> None:
        """Close the clients: after a coordinator's address has changed new ones are needed."""
        while self._clients:
            self._clients.popitem()[1].close()

    def call(self, method: Method[Q, A], request: Q, *via: str, timeout_s: float = 10.0) -> A:
        return self.client(*via).call(method, request, timeout_s=timeout_s)

    def apply(self, manifest: str, *via: str) -> ApplyWorkloadResponse:
        return self.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=manifest), *via)

    def status(self, *via: str) -> GetStatusResponse:
        return self.call(GET_STATUS, GetStatusRequest(), *via)

    def leader(self, *via: str) -> str:
        """Return the leader's name; waits for one."""
        return self.until(lambda: self.status(*via).header.leader_id, "a leader")

    def followers(self) -> list[str]:
        leader = self.leader()
        return [process.name for process in self.coordinators if process.name != leader]

    def tasks(self, workload: str, *via: str, all: bool = False) -> list[Task]:
        request = ListTasksRequest(namespace="default", workload=workload, all=all)
        return list(self.call(LIST_TASKS, request, *via).tasks)

    # --- etcd itself ---

    def store(self, name: str) -> EtcdStore:
        """Return a way into one coordinator's etcd, as that coordinator; made on the loop that uses it, and closed."""
        return self.store_at(self.processes[name].address("etcd"))

    def store_at(self, address: str) -> EtcdStore:
        """Return the same by the etcd's address."""
        owner = next(process for process in self.coordinators if process.address("etcd") == address)
        return EtcdStore(address, self.trust.etcd_credentials(owner))

    def etcd_url(self, name: str, use: str = "etcd") -> str:
        return f"{self.trust.scheme}://{self.processes[name].address(use)}"

    def members(self, name: str) -> tuple[Member, ...]:
        """Return the member list as one coordinator's etcd tells it."""
        return self._admin(name, lambda admin: admin.members())

    def hash_kv(self, name: str, revision: int) -> HashKv:
        return self._admin(name, lambda admin: admin.hash_kv(revision))

    def compact(self, name: str, revision: int) -> None:
        """Make etcd forget what was before a revision, through one member."""
        body = json.dumps({"revision": str(revision), "physical": True}).encode()
        request = urllib.request.Request(f"{self.etcd_url(name)}/v3/kv/compaction", body)
        context = None
        if files := self.trust.etcd_files(self.processes[name]):
            context = ssl.create_default_context(cafile=files.ca_file)
            context.load_cert_chain(files.cert_file, files.key_file)
        with urllib.request.urlopen(request, timeout=10.0, context=context):
            pass

    def _admin(self, name: str, ask: Callable[[EtcdAdmin], Any]) -> Any:
        admin = EtcdAdmin(self.etcd_url(name), self.trust.etcd_files(self.processes[name]))
        try:
            return asyncio.run(ask(admin))
        finally:
            admin.close()

    def write_raw(self, name: str, operation: Put | Delete) -> None:
        """Write past cloudless, as a person with etcdctl would; etcd may be about to change its leader."""

        async def write() -> bool:
            store = self.store(name)
            try:
                await store.txn(Txn(then=(operation,)), timeout_s=5.0)
            finally:
                await store.close()
            return True

        self.until(lambda: asyncio.run(write()), "etcd takes the write")

    def read_raw(self, name: str, key: str) -> bytes:
        """Return the value that is stored under a key. Raises AssertionError if there is none."""

        async def read() -> bytes:
            store = self.store(name)
            (got,) = (await store.txn(Txn(then=(Get(key),)), timeout_s=5.0)).results
            await store.close()
            assert isinstance(got, Got)
            assert got.kv is not None, f"nothing is stored under {key}"
            return got.kv.value

        return asyncio.run(read())

    # --- what must hold ---

    def wait_formed(self, timeout_s: float = 40.0) -> None:
        """Wait until all coordinators are voters of one cluster that has a name and a leader."""
        self.until(self._all_vote, "three voters and a leader", timeout_s)
        self.trust.begin(self.coordinators)

    def _all_vote(self) -> bool:
        names = {process.name for process in self.coordinators}
        for name in names:
            try:
                status = self.status(name)
            except Unauthenticated:  # founders are let in by their signature, and go on record a moment later
                return False
            voters = {c.record.id for c in status.coordinators if c.member_role == "voter" and c.linked}
            if voters != names or not status.header.leader_id or not status.header.cluster_id:
                return False
        return True

    def wait_ready(self, timeout_s: float = 40.0) -> None:
        """Wait until the coordinators are whole and every agent's node is READY."""
        self.wait_formed(timeout_s)
        wanted = {process.name: "READY" for process in self.agents}
        self.until(lambda: self.phases() == wanted, "every node READY", timeout_s)

    def phases(self) -> dict[str, str]:
        return {node.id: node.phase for node in self.call(LIST_NODES, ListNodesRequest()).nodes}

    def assert_one_cluster(self) -> None:
        """Every coordinator tells of the same cluster, with equal content in cloudless and in etcd."""
        names = [process.name for process in self.coordinators]
        statuses = [self.status(name) for name in names]
        assert len({(s.header.cluster_id, s.etcd_cluster_id) for s in statuses}) == 1
        lists = [self.members(name) for name in names]
        assert lists[0] == lists[1] == lists[2]
        voters = sorted(member.name for member in lists[0] if member.client_urls and not member.is_learner)
        assert voters == names
        self.assert_equal_states()

    def assert_equal_states(self) -> None:
        """Digests are equal at one revision, and so are the hashes of etcd's members."""
        names = [process.name for process in self.coordinators]
        revision = max(self.call(GET_DIGEST, GetDigestRequest(), name).revision for name in names)
        digests = {name: self.call(GET_DIGEST, GetDigestRequest(revision=revision), name) for name in names}
        assert {answer.revision for answer in digests.values()} == {revision}
        assert len({answer.digest for answer in digests.values()}) == 1, digests
        hashes = {name: self.hash_kv(name, revision) for name in names}
        assert len(set(hashes.values())) == 1, hashes


def stale(min_revision: int = 0) -> ReadOptions:
    """Return what asks a coordinator for what it holds itself, at `min_revision` at least."""
    return ReadOptions(consistency=CONSISTENCY_STALE, min_revision=min_revision)


def manifest_of(name: str, *, replicas: int = 1, env: dict[str, str] | None = None, **spec: Any) -> str:
    """Return the manifest of a workload whose tasks run until they are told to stop."""
    document = {
        "apiVersion": "cloudless/v1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "executor": "process",
            "command": ["sleep", "1000000"],
            "env": env or {},
            "replicas": replicas,
            "resources": {"requests": {"cpu": "50m", "memory": "8Mi"}},
            "stopGrace": "2s",
            **spec,
        },
    }
    return json.dumps(document)


def free_ports(count: int) -> list[int]:
    """Return ports that were free just now and never given before, below those of outgoing connections."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_100, 14_900)
        with socket.socket() as probe, suppress(OSError):
            if port not in _given:
                probe.bind((HOST, port))
                _given.add(port)
                found.append(port)
    return found
