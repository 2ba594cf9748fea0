"""Start a dev cluster and stay until it is ready: each step says what it waits for, a failure says why and cleans up.

::

    etcd found ─► coordinators started ─► coordinator-1 answers ─► (TLS: identities) ─► agents started
      ─► three voters ─► a leader ─► three nodes READY ─► workload runs
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloudless.cli.client import Client
from cloudless.cli.dev.foreground import undisturbed
from cloudless.cli.dev.identities import credentials_of, keep_context, make_admin, make_tokens, prepare_founding
from cloudless.cli.dev.preflight import keep_ports, require_ready
from cloudless.cli.dev.progress import Detail, Progress
from cloudless.cli.dev.table import Table
from cloudless.cli.methods import APPLY_WORKLOAD, GET_STATUS, GET_WORKLOAD, LIST_MEMBERS, LIST_NODES
from cloudless.errors import CloudlessError, InvalidSpec, MemberFailed, StoreTimeout
from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest, ListMembersRequest
from cloudless.rpc.v1.node_pb2 import ListNodesRequest
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest, GetWorkloadRequest

_HEARD_WITHIN_S = 3.0
_POLL_S = 0.1
_LOG_LINES = 15
_LOG_BYTES = 16 * 1024

Look = Callable[[], str]
"""Returns what is missing, "" once nothing is."""


@dataclass(frozen=True, slots=True)
class Start:
    """How to start: `manifest` is applied when the nodes are ready ("" for none); the whole may take `timeout_s`."""

    manifest: str = ""
    timeout_s: float = 90.0


class Starter:
    """One start of a dev cluster."""

    def __init__(self, table: Table, progress: Progress, start: Start) -> None:
        self._table = table
        self._progress = progress
        self._start = start
        self._deadline_s = time.monotonic() + start.timeout_s
        self._tls = table.layout.tls

    def run(self) -> None:
        """Start everything and return when it is ready. Raises typed errors; what was started is left to the caller."""
        layout = self._table.layout
        require_ready(self._table)
        keep_ports(layout)
        self._find_etcd()
        prepare_founding(layout)
        self._start_all([c.name for c in layout.coordinators], "coordinators started")
        self._wait("coordinator-1 answers", self._first_answers)
        if self._tls:
            self._wait("everybody has an identity", self._identities)
        with Client(layout.api_addresses, 2.0, credentials_of(layout)) as self._client:
            self._start_all([a.name for a in layout.agents], "agents started")
            self._wait("three voters", self._three_voters)
            self._wait("a leader", self._leader)
            self._wait("three nodes READY", self._nodes_ready)
            if self._start.manifest:
                self._apply()
        keep_context(layout)

    def _find_etcd(self) -> None:
        # Blocks for minutes when it has to fetch; imported here because its neighbours are slow to import.
        from etcd.find import find

        with self._progress.step("etcd found") as detail:
            detail("looking on this machine, else fetching (once)")
            found = find()
            self._table.etcd_binary = str(found.path)
        self._progress.say(f"    {found.version} from {found.source}")

    def _start_all(self, names: list[str], goal: str) -> None:
        with self._progress.step(goal) as detail:
            for name in names:
                with undisturbed():
                    who = self._table.start(name)
                detail(f"{name} is pid {who.pid}")

    def _wait(self, goal: str, look: Look) -> None:
        with self._progress.step(goal) as detail:
            self._poll(goal, look, detail)

    def _poll(self, goal: str, look: Look, detail: Detail) -> None:
        missing = ""
        while True:
            self._require_all_alive()
            try:
                missing = look()
            except CloudlessError as error:
                if not error.retryable:
                    raise
                missing = error.message
            if not missing:
                return
            detail(missing)
            if time.monotonic() > self._deadline_s:
                raise StoreTimeout(
                    f"not ready after {self._start.timeout_s:g} s: {goal}: {missing}\n{self._tail_of_suspect(missing)}",
                    hint="a slow machine may need --timeout 300; the logs are under "
                    + str(self._table.layout.state_dir),
                )
            time.sleep(_POLL_S)

    def _require_all_alive(self) -> None:
        living = self._table.living()
        for name, who in self._table.identities().items():
            if name not in living:
                raise MemberFailed(
                    f"{name} stopped while starting ({self._table.exit_text(who.pid)}):\n{self._tail(name)}",
                    hint=f"the whole log is {self._table.layout.log_file(name)}; once cured, `cloudless dev up` again",
                )

    def _tail_of_suspect(self, missing: str) -> str:
        suspect = next((name for name in self._table.layout.names if name in missing), "coordinator-1")
        return f"end of {suspect}'s log:\n{self._tail(suspect)}"

    def _tail(self, name: str) -> str:
        lines = _last_lines(self._table.layout.log_file(name)) or ["(its log is empty)"]
        return "\n".join(f"  | {line}" for line in lines)

    # --- what to wait for: each returns what is missing ---

    def _first_answers(self) -> str:
        first = self._table.layout.api_addresses[0]
        with Client((first,), 1.0, credentials_of(self._table.layout)) as client:
            client.call(GET_STATUS, GetStatusRequest())
        return ""

    def _identities(self) -> str:
        make_admin(self._table.layout)
        make_tokens(self._table.layout)
        return ""

    def _three_voters(self) -> str:
        members = self._client.call(LIST_MEMBERS, ListMembersRequest()).members
        voters = {m.name for m in members if m.started and not m.learner}
        missing = [c.name for c in self._table.layout.coordinators if c.name not in voters]
        learning = [m.name for m in members if m.learner]
        text = f"{len(voters)} of 3, missing {', '.join(missing)}" if missing else ""
        return text + (f" ({', '.join(learning)} catching up)" if missing and learning else "")

    def _leader(self) -> str:
        answer = self._client.call(GET_STATUS, GetStatusRequest())
        return "" if answer.header.leader_id else "; ".join(answer.problems) or "no leader yet"

    def _nodes_ready(self) -> str:
        # Heard of in this run: the state of an earlier one may still call a node READY.
        nodes = {n.id: n.phase if 0 <= n.last_heard_s < _HEARD_WITHIN_S else "not heard of yet"
                 for n in self._client.call(LIST_NODES, ListNodesRequest()).nodes}  # fmt: skip
        missing = [f"{a.name} {nodes.get(a.name, 'not enrolled')}" for a in self._table.layout.agents
                   if nodes.get(a.name) != "READY"]  # fmt: skip
        return ", ".join(missing)

    def _apply(self) -> None:
        with self._progress.step("workload runs") as detail:
            applied = self._client.call(APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=self._start.manifest)).results
            for result in applied:
                self._poll("workload runs", lambda r=result: self._workload_runs(r.namespace, r.name), detail)  # type: ignore[misc]

    def _workload_runs(self, namespace: str, name: str) -> str:
        seen = self._client.call(GET_WORKLOAD, GetWorkloadRequest(namespace=namespace, name=name)).workload.summary
        done = seen.running == seen.desired == seen.updated
        return "" if done else f"{name}: {seen.running} of {seen.desired} run"


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return []


def read_manifest(path: Path) -> str:
    """Return the manifest's text. Raises InvalidSpec if it cannot be read."""
    from cloudless.errors import Problem

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec([Problem(str(path), str(error))]) from error
