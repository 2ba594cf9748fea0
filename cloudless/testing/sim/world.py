"""The hosts, processes and connections of one simulated cluster, and what can be done to them from outside.

Holds no fault schedule and no judgement: `faults` decides what happens, `checkers` whether it was right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from cloudless.coordinator.replica import _decode_event
from cloudless.core import keys
from cloudless.core.model import Resources, SchedulerRecord
from cloudless.core.state import StateMachine
from cloudless.errors import CloudlessError
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.testing.fixed_seeds import FixedSeeds
from cloudless.testing.sim.agent import AgentLife, Host, SimMachine
from cloudless.testing.sim.clock import SimClock
from cloudless.testing.sim.coordinator import CoordinatorLife, Surroundings
from cloudless.testing.sim.etcd_cluster import STORE, host_of
from cloudless.testing.sim.happenings import AskedStore, Handled, Stored
from cloudless.testing.sim.loop import Process, SimLoop
from cloudless.testing.sim.network import Network
from cloudless.testing.sim.options import Options
from cloudless.testing.sim.roster import NamedSeeds, Roster
from cloudless.testing.sim.store import StoreHost, Wrote
from cloudless.testing.sim.streams import CallContext, Connection, call_unary
from cloudless.testing.sim.trace import Trace
from cloudless.testing.sim.trust import Trust
from cloudless.testing.sim.users import REPLICAS_MAX, Users

USERS = "users"
HEARTBEAT_PERIOD_S = 1.0
TASK_CPU_MILLICORES = 100
JUMP_MS = 86_400_000


class World:
    """One cluster. `truth` is the state as the store itself has it, after each write."""

    def __init__(self, options: Options, *, keep_trace: bool = False) -> None:
        self.options = options
        seed = f"{options.seed}-{options.size}-{options.coordinators}"
        self.loop = SimLoop()  # type: ignore[abstract]
        self.trace = Trace(self.loop, keep_all=keep_trace)
        self.random = Random(f"world-{seed}")
        self.network = Network(self.loop, Random(f"network-{seed}"))
        self.host = StoreHost(self.loop, self.trace, old_etcd=options.old_etcd)
        self.host.prompt_expiry = options.prompt_expiry
        self.host.on_wrote = self._on_wrote
        self.host.on_asked = lambda by, call, txn: self.tell(AskedStore(by, call, txn, self.host.memory.revision))
        self.host.before = lambda by, txn: self.before_commit(by, txn)
        self.host.after = lambda by, txn: self.after_commit(by, txn)
        self.truth = StateMachine()
        self.listeners: list[Callable[[Any], None]] = []
        self.before_commit: Callable[[Process, Txn | None], bool] = lambda by, txn: True
        self.after_commit: Callable[[Process, Txn | None], bool] = lambda by, txn: True
        self.before_journal: Callable[[str], bool] = lambda node_id: True
        self.after_journal: Callable[[str], bool] = lambda node_id: True
        self.coordinator_ids = tuple(f"c{number}" for number in range(1, options.coordinators + 1))
        self.node_ids = tuple(f"n{number}" for number in range(1, options.agents + 1))
        self.roster = Roster(self, options.membership) if options.membership else None
        self.trust = Trust(self, options.certificates) if options.certificates else None
        self.surroundings = Surroundings(
            loop=self.loop,
            network=self.network,
            host=self.host,
            tell=self.tell,
            connect=self._connect,
            peers=frozenset(self.coordinator_ids),
            node_timeout_s=options.node_timeout_s,
            heartbeat_period_s=HEARTBEAT_PERIOD_S,
            lease_ttl_s=options.lease_ttl_s,
            address_of=self.address_of,
            build_seeds=lambda: NamedSeeds(self.roster) if self.roster else FixedSeeds(sorted(self.coordinator_ids)),
            find_care=lambda life: self.roster.care_for(life) if self.roster else None,
            find_papers=lambda life: self.trust.papers_of(life) if self.trust else None,
            find_agent_papers=lambda life: self.trust.papers_of_agent(life) if self.trust else None,
            on_removed=lambda life: self.roster.on_removed(life) if self.roster else None,
        )
        self._seed = seed
        self._lives = 0
        self.clocks = {name: self._build_clock() for name in (*self.coordinator_ids, *self.node_ids)}
        self.hosts = {node_id: self._build_host(node_id) for node_id in self.node_ids}
        self.coordinators: dict[str, CoordinatorLife] = {}
        self.agents: dict[str, AgentLife] = {}
        self._connections: list[Connection] = []
        self._ended: list[Process] = []
        self.users = Users(
            self.loop,
            Random(f"users-{seed}"),
            self._call,
            self.tell,
            coordinators=lambda: self.coordinator_ids,
            nodes=self.node_ids,
            names=tuple(f"w{number}" for number in range(1, options.workloads + 1)),
            lost_after_s=options.lost_after_s,
            rollouts=options.rollouts,
            placing=options.placing is not None,
            spreading=options.rebalance_after_s > 0,
        )
        if options.placing is not None or options.rebalance_after_s:
            preemption = options.placing is not None and options.placing.preemption
            settings = SchedulerRecord(preemption=preemption, rebalance_after_s=options.rebalance_after_s)
            self.plant(Put(keys.SCHEDULER, encode_record(settings)))

    def tell(self, happening: Any) -> None:
        for listener in self.listeners:
            listener(happening)

    def address_of(self, coordinator_id: str) -> str:
        """Return where a coordinator is dialled: just its id where addresses are no subject."""
        return f"{coordinator_id}:1" if self.options.membership else coordinator_id

    # --- processes ---

    def start(self, name: str) -> None:
        """Start a coordinator's or an agent's process if it does not live, and its host has not gone."""
        held = self.life(name)
        if self.roster is not None and self.roster.is_off(name):
            return
        if held is not None and held.process.alive:
            return
        if held is not None:
            self._ended.append(held.process)
        self._lives += 1
        seed = f"{name}-{self._lives}-{self._seed}"
        self.trace.note(name, "starts")
        life: CoordinatorLife | AgentLife
        if name in self.hosts:
            life = self.agents[name] = AgentLife(self.hosts[name], self._lives, self.surroundings, seed)
        else:
            life = self.coordinators[name] = CoordinatorLife(
                name, self._lives, self.surroundings, self.clocks[name], seed
            )
        life.start()

    def life(self, name: str) -> CoordinatorLife | AgentLife | None:
        return self.agents.get(name) if name in self.hosts else self.coordinators.get(name)

    def lives(self) -> list[CoordinatorLife | AgentLife]:
        return [*self.coordinators.values(), *self.agents.values()]

    def serving(self) -> list[CoordinatorLife]:
        """Return the coordinators that take part, or should."""
        return [life for life in self.coordinators.values() if life.id in self.coordinator_ids and life.serves]

    def living(self) -> list[CoordinatorLife | AgentLife]:
        return [life for life in self.lives() if life.process.alive]

    def process(self, name: str) -> Process | None:
        life = self.life(name)
        return life.process if life else None

    def kill(self, name: str, *, told: bool) -> None:
        """End a process at once; `told`: its host lives on and resets its connections."""
        process = self.process(name)
        if process is None or not process.alive:
            return
        self.trace.note(name, "is killed")
        process.kill()
        self._hang_up(process, told=told)
        life = self.coordinators.get(name)
        if life is not None:
            for watch in list(life.store.watches):
                watch.end()

    def _hang_up(self, process: Process, *, told: bool) -> None:
        self._connections = [connection for connection in self._connections if not connection.over]
        for connection in self._connections:
            if connection.belongs_to(process):
                connection.lose(process, told=told)

    def freeze(self, name: str) -> None:
        process = self.process(name)
        if process is not None and process.running:
            self.trace.note(name, "is frozen")
            process.freeze()

    def thaw(self, name: str) -> None:
        process = self.process(name)
        if process is not None and process.alive and not process.running:
            self.trace.note(name, "goes on")
            process.thaw()

    def dispose(self) -> None:
        """Let everything be collected without a word."""
        self.tell = lambda happening: None  # type: ignore[method-assign]
        self.listeners.clear()
        for process in (*self._ended, *(life.process for life in self.lives())):
            process.kill()
            process.silence()

    # --- connections ---

    def _connect(self, process: Process, target: str, service: str) -> Connection:
        def find_server() -> Any:
            life = self.find_serving(target)
            if life is None:
                return None
            if self.trust is not None:
                return self.trust.open_stream(connection, process.name, life, service)
            return life.process, life.serve(service)

        target = host_of(target)
        connection = Connection(self.loop, self.network, process, process.name, target, find_server)
        if self.options.forgetful and service == "sessions":
            connection.rewrite_forth = _forget_what_was_seen
            connection.rewrite_back = self._claim_old_term
        self._connections.append(connection)
        if len(self._connections) > 200:
            self._connections = [held for held in self._connections if not held.over]
        return connection

    def _claim_old_term(self, message: Any) -> Any:
        if message.WhichOneof("body") == "assignments" and self.random.random() < 0.1:
            message.assignments.term = 1
        return message

    def find_serving(self, coordinator_id: str) -> CoordinatorLife | None:
        """Return the life that serves there, None if nobody does."""
        life = self.coordinators.get(coordinator_id)
        return life if life is not None and life.process.alive and life.serves else None

    async def call_between(
        self, source: str, address: str, service: str, method: str, request: Any, timeout_s: float
    ) -> Any:
        """Let one coordinator call another, or an operator one (`source` is USERS)."""
        target = host_of(address)

        def find_handler() -> Any:
            life = self.coordinators.get(target)
            if life is None or not life.process.alive:
                return None
            if self.trust is not None and source != USERS:
                return self.trust.open_call(source, life, service, method)
            return life.process, lambda request, context: life.find_method(service, method)(request, context)

        return await call_unary(self.loop, self.network, source, target, find_handler, request, timeout_s)

    async def _call(self, target: str, service: str, method: str, request: Any, timeout_s: float) -> Any:
        def find_handler() -> Any:
            life = self.find_serving(target)
            if life is None or not life.replica.loaded.is_set():
                return None
            return life.process, self._timed(life, method, getattr(getattr(life, service), method))

        return await call_unary(self.loop, self.network, USERS, target, find_handler, request, timeout_s)

    def _timed(self, life: CoordinatorLife, method: str, handler: Callable[[Any, Any], Any]) -> Any:
        async def handle(request: Any, context: CallContext) -> Any:
            began_s, allowed_s, stalls = self.loop.now_s, context.time_remaining() or 0.0, life.process.stalls
            outcome = "cancelled"
            try:
                result = await handler(request, context)
                outcome = "ok"
                return result
            except CloudlessError as error:
                outcome = error.code
                raise
            finally:
                stalled = life.process.stalls != stalls or not life.process.running
                self.tell(Handled(method, self.loop.now_s - began_s, allowed_s, outcome, stalled))

        return handle

    # --- the store ---

    def _on_wrote(self, wrote: Wrote) -> None:
        queue = self.truth.candidates()
        applied = self.truth.apply(
            wrote.revision, [_decode_event(event) for event in wrote.events if event.kv.key.startswith(keys.PREFIX)]
        )
        leader = queue[0] if queue else None
        self.tell(
            Stored(
                wrote.revision, wrote.by, wrote.events, wrote.txn, wrote.lease_id, tuple(applied.transitions), leader
            )
        )

    def plant(self, put: Put) -> None:
        """Write a record as if it had been there from the beginning."""
        self.host.do(None, self.host.memory.txn(Txn(then=(put,)), timeout_s=1))

    def compact(self) -> None:
        self.host.do(None, self.host.memory.compact(self.host.memory.revision, timeout_s=1))
        self.trace.note(STORE, f"compacts at r{self.host.memory.revision}")

    # --- hosts ---

    def _build_clock(self) -> SimClock:
        return self.build_clock(self.random)

    def build_clock(self, random: Random) -> SimClock:
        rate = 1.0 + random.uniform(-self.options.drift, self.options.drift)
        return SimClock(self.loop, rate=rate, boot_s=random.uniform(0, 100_000))

    @property
    def _zoned(self) -> bool:
        return self.options.placing is not None or self.options.rebalance_after_s > 0

    def _node_cpu_millicores(self) -> int:
        """Return what makes room scarce: one more task a node than must fit if all is spread evenly."""
        tasks_max = REPLICAS_MAX * self.options.workloads
        return TASK_CPU_MILLICORES * (math.ceil(tasks_max / self.options.agents) + 1)

    def _build_host(self, node_id: str) -> Host:
        clock = self.clocks[node_id]
        machine = SimMachine(node_id, clock, self.tell)
        host = Host(
            node_id=node_id,
            capacity=Resources(
                cpu_millicores=self._node_cpu_millicores(), memory_mb=4096, storage_mb=1024, bandwidth_mbps=1000
            ),
            clock=clock,
            machine=machine,
            zone=f"z{(int(node_id[1:]) if self._zoned else len(node_id)) % 2}",
        )
        host.before_write = lambda: self.before_journal(node_id)
        host.after_write = lambda: self.after_journal(node_id)
        return host


def _forget_what_was_seen(message: Any) -> Any:
    match message.WhichOneof("body"):
        case "hello":
            message.hello.revision_seen = 0
        case "change_role":
            message.change_role.revision_seen = 0
    return message


def instances(world: World) -> dict[str, list[tuple[str, int]]]:
    """Return what runs on each node."""
    return {node_id: host.machine.running() for node_id, host in world.hosts.items()}  # type: ignore[attr-defined]
