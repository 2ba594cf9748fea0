"""What goes wrong, and when: each kind of fault is begun, lasts for a while, and is over.

Which kinds a run has and how often they come is in its `Options`; whom they hit and for how long is drawn as they
come. `heal` ends them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from cloudless.errors import CloudlessError
from cloudless.ports import Txn
from cloudless.testing.sim.coordinator import CoordinatorLife
from cloudless.testing.sim.etcd_cluster import STORE
from cloudless.testing.sim.happenings import Disturbed, Soothed
from cloudless.testing.sim.loop import Process
from cloudless.testing.sim.network import Weather
from cloudless.testing.sim.world import JUMP_MS, USERS, World

PAUSE_MAX_S = 9.0
CUT_MAX_S = 8.0
ENDS_MAX = 3
"""Tasks that end by themselves in one run: each more would only lengthen its back-off."""


class Faults:
    """The nemesis of one world."""

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._over: dict[int, Callable[[], None]] = {}
        self._serial = 0
        self._ends = 0
        self._healed = False
        self._troubled: list[str] = []
        self._armed_commit: dict[str, tuple[int, bool, bool]] = {}
        self._armed_journal: dict[str, tuple[int, bool]] = {}
        world.before_commit = lambda by, txn: self._at_commit(by, txn, before=True)
        world.after_commit = lambda by, txn: self._at_commit(by, txn, before=False)
        world.before_journal = lambda node_id: self._at_journal(node_id, before=True)
        world.after_journal = lambda node_id: self._at_journal(node_id, before=False)

    async def run(self) -> None:
        """Let things go wrong until cancelled."""
        options = self._world.options
        while True:
            await asyncio.sleep(self._random.expovariate(1 / options.fault_pause_s))
            self._begin(self._random.choice(options.kinds))

    def heal(self) -> None:
        """End everything: processes run, the network is whole, clocks stay where they are."""
        world = self._world
        self._healed = True
        self._armed_commit.clear()
        self._armed_journal.clear()
        for serial in sorted(self._over):
            self._over[serial]()
        world.network.heal_all()
        if world.roster is not None:
            world.roster.cluster.reopen()
        world.network.weather = Weather()
        world.host.recover(new_leader=False)
        for name in (*world.coordinator_ids, *world.node_ids):
            world.thaw(name)
            world.start(name)
        world.trace.note("-", "all is healed")

    # --- one fault ---

    def _begin(self, kind: str) -> None:
        begin = getattr(self, "_" + kind.replace("-", "_"))
        begin()

    def _during(self, kind: str, who: str, seconds: float, over: Callable[[], None]) -> None:
        """Say that a fault began; let it be over after `seconds`."""
        world = self._world
        host = who.partition(">")[0]
        if host in world.clocks:
            self._troubled.append(host)
        world.trace.note(who, f"{kind} for {seconds:.3f} s")
        world.tell(Disturbed(kind, who))
        self._serial += 1
        serial = self._serial

        def end() -> None:
            if self._over.pop(serial, None) is not None:
                if host in self._troubled:
                    self._troubled.remove(host)
                over()
                world.trace.note(who, f"{kind} is over")
                world.tell(Soothed(kind, who))

        self._over[serial] = end
        world.loop.world_at(world.loop.now_s + seconds, end)

    def _coordinator(self) -> str:
        """Draw a coordinator, more often than not the leader."""
        leaders = [life.id for life in self._world.coordinators.values() if life.scope_term]
        if leaders and self._random.random() < 0.5:
            return leaders[0]
        return self._random.choice(self._world.coordinator_ids)

    def _node(self) -> str:
        return self._random.choice(self._world.node_ids)

    # --- processes ---

    def _crash(self, kind: str, name: str) -> None:
        self._world.kill(name, told=self._random.random() < 0.7)
        self._during(kind, name, self._random.uniform(0.1, 5.0), lambda: self._world.start(name))

    def _crash_coordinator(self) -> None:
        self._crash("crash-coordinator", self._coordinator())

    def _crash_agent(self) -> None:
        self._crash("crash-agent", self._node())

    def _crash_at_commit(self) -> None:
        """The process dies at one of its next commits: before it reaches the store, or before the answer comes."""
        self._armed_commit[self._coordinator()] = (
            self._random.randint(1, 6),
            self._random.random() < 0.4,
            self._random.random() < 0.5,
        )

    def _crash_at_journal(self) -> None:
        self._armed_journal[self._node()] = (self._random.randint(1, 6), self._random.random() < 0.5)

    def _at_commit(self, by: Process, txn: Txn | None, *, before: bool) -> bool:
        armed = self._armed_commit.get(by.name)
        if armed is None or not by.alive:
            return True
        left, dies_before, leaders_only = armed
        if leaders_only and txn is not None and not txn.compares:
            return True
        if before:
            left -= 1
            self._armed_commit[by.name] = (left, dies_before, leaders_only)
        if left > 0 or before != dies_before:
            return True
        del self._armed_commit[by.name]
        self._crash("crash-at-commit", by.name)
        return False

    def _at_journal(self, node_id: str, *, before: bool) -> bool:
        armed = self._armed_journal.get(node_id)
        if armed is None:
            return True
        left, dies_before = armed
        if before:
            left -= 1
            self._armed_journal[node_id] = (left, dies_before)
        if left > 0 or before != dies_before:
            return True
        del self._armed_journal[node_id]
        self._crash("crash-at-journal", node_id)
        return False

    def _stop_coordinator(self) -> None:
        name = self._coordinator()
        life = self._world.coordinators[name]
        if not life.process.running or life.leaving:
            return
        life.process.spawn(life.leave())

        def over() -> None:
            self._world.kill(name, told=True)
            self._world.start(name)

        self._during("stop-coordinator", name, self._random.uniform(2.0, 5.0), over)

    def _pause(self, kind: str, name: str) -> None:
        """Freeze a process; as when a machine sleeps, its wall clock may be another one afterwards."""
        self._world.freeze(name)
        if "jump-clock" in self._world.options.kinds and self._random.random() < 0.5:
            self._jump(name)
        # Some about as long as a lease or a node's time-out: then it depends on the moment who leads and who is lost.
        options = self._world.options
        lengths_s = self._random.choice(
            (
                (0.2, PAUSE_MAX_S),
                (options.lease_ttl_s / 2, options.lease_ttl_s + 0.3),
                (options.node_timeout_s - 0.5, options.node_timeout_s + 2.5),
            )
        )
        seconds = self._random.uniform(*lengths_s)
        self._during(kind, name, seconds, lambda: self._world.thaw(name))

    def _pause_coordinator(self) -> None:
        self._pause("pause-coordinator", self._coordinator())

    def _pause_agent(self) -> None:
        self._pause("pause-agent", self._node())

    # --- the network ---

    def _cut_ways(self, kind: str, who: str, ways: list[tuple[str, str]]) -> None:
        network = self._world.network
        for way in ways:
            network.cut(*way)

        def over() -> None:
            for way in ways:
                network.heal(*way)

        self._during(kind, who, self._random.uniform(0.2, CUT_MAX_S), over)

    def _cut(self) -> None:
        """Cut the way between two, in one direction or both."""
        one = self._coordinator()
        others = [name for name in (*self._world.coordinator_ids, *self._world.node_ids, STORE, STORE) if name != one]
        other = self._random.choice(others)
        ways = [(one, other), (other, one)]
        which = self._random.choice((ways, ways, ways[:1], ways[1:]))
        self._cut_ways("cut", f"{'|'.join('>'.join(way) for way in which)}", which)

    def _isolate(self) -> None:
        """Cut one host from all others, in one direction or both."""
        one = self._random.choice((self._coordinator(), self._node()))
        others = [name for name in (*self._world.coordinator_ids, *self._world.node_ids, STORE, USERS) if name != one]
        out = [(one, other) for other in others]
        back = [(other, one) for other in others]
        self._cut_ways("isolate", one, self._random.choice((out + back, out + back, out, back)))

    def _bad_weather(self) -> None:
        random = self._random
        self._world.network.weather = Weather(
            slow=random.choice((0.0, 0.1, 0.5)),
            slow_max_s=random.choice((0.2, 1.4, 3.0)),
            lost=random.choice((0.0, 0.05, 0.3)),
            refused=random.choice((0.0, 0.0, 0.1)),
        )

        def over() -> None:
            self._world.network.weather = Weather()

        self._during("bad-weather", "-", random.uniform(0.5, 6.0), over)

    def _slow_way(self) -> None:
        """Calls to or from the store take long in one direction; then, often, no more come through at all."""
        name = self._coordinator()
        way = self._random.choice(((name, STORE), (STORE, name), (STORE, name)))
        slow_ways_s = self._world.network.slow_ways_s
        slow_ways_s[way] = self._random.uniform(0.3, 1.45)
        breaks = self._random.random() < 0.6

        def over() -> None:
            slow_ways_s.pop(way, None)
            if breaks and not self._healed:
                self._cut_ways("cut", name, [(name, STORE), (STORE, name)])

        self._during("slow-way", ">".join(way), self._random.uniform(1.0, 4.0), over)

    # --- the store ---

    def _store_down(self) -> None:
        """No quorum, or an election of etcd's own, after which every lease has its full time again."""
        host = self._world.host
        host.failed = True
        new_leader = self._random.random() < 0.5
        if self._random.random() < 0.5:
            self._fail_watches()
        self._during("store-down", STORE, self._random.uniform(0.2, 5.0), lambda: host.recover(new_leader=new_leader))

    def _fail_watches(self) -> None:
        for life in self._world.coordinators.values():
            for watch in list(life.store.watches):
                watch.fail()

    def _lag(self) -> None:
        """A coordinator's own member is behind: its watch tells everything, late."""
        store = self._world.coordinators[self._coordinator()].store
        store.lag_s = self._random.uniform(0.05, 4.0)

        def over() -> None:
            store.lag_s = 0.0

        self._during("lag", store.name, self._random.uniform(0.5, 5.0), over)

    def _break_watch(self) -> None:
        name = self._coordinator()
        for watch in list(self._world.coordinators[name].store.watches):
            watch.fail()
        self._world.tell(Disturbed("break-watch", name))

    def _compact(self) -> None:
        """Forget history, mostly while somebody's watch is cut: whoever was cut must read afresh."""
        if self._random.random() < 0.3:
            return self._world.compact()
        name = self._coordinator()
        self._cut_ways("compact", name, [(name, STORE), (STORE, name)])
        for watch in list(self._world.coordinators[name].store.watches):
            watch.fail()
        self._world.loop.world_at(self._world.loop.now_s + self._random.uniform(0.2, CUT_MAX_S), self._world.compact)
        return None

    def _lose_lease(self) -> None:
        life: CoordinatorLife = self._world.coordinators[self._coordinator()]
        lease_id = life.leadership.lease_id
        if lease_id and not self._world.host.down:
            host = self._world.host
            host.do(None, host.memory.revoke(lease_id, timeout_s=1))
            self._world.tell(Disturbed("lose-lease", life.id))

    def _transfer(self) -> None:
        """Ask a coordinator to hand the leadership on."""
        life: CoordinatorLife = self._world.coordinators[self._coordinator()]
        if not life.process.running:
            return

        async def transfer() -> None:
            try:
                await life.leadership.transfer("", timeout_s=2.0)
            except CloudlessError:
                return

        life.process.spawn(transfer())
        self._world.tell(Disturbed("transfer", life.id))

    # --- hosts ---

    def _jump_clock(self) -> None:
        name = self._random.choice((self._coordinator(), self._node()))
        if self._troubled and self._random.random() < 0.5:
            name = self._random.choice(self._troubled)
        self._jump(name)

    def _jump(self, name: str) -> None:
        jump_ms = self._random.choice((-JUMP_MS, JUMP_MS, -5_000, 5_000))
        if self._world.trust is not None:  # certificates stand clocks that are wrong by as much as they are dated back
            jump_ms = self._world.trust.bound_jump(name, jump_ms)
        self._world.clocks[name].wall_offset_ms += jump_ms
        self._world.trace.note(name, f"wall clock jumps by {jump_ms} ms")

    def _end_task(self) -> None:
        """A task's process ends by itself."""
        node_id = self._node()
        machine = self._world.hosts[node_id].machine
        running = sorted(key for key, attempt in machine.attempts.items() if attempt.instance.running)
        if not running or self._ends >= ENDS_MAX:
            return
        self._ends += 1
        task_id, attempt = self._random.choice(running)
        self._world.trace.note(node_id, f"task {task_id} ends by itself")
        self._world.tell(Disturbed("end-task", task_id))
        machine.end(task_id, attempt, exit_code=self._random.choice((0, 1)))

    def _slow_disk(self) -> None:
        disk = self._world.hosts[self._node()].disk
        usual, disk.slow_max_s = disk.slow_max_s, 1.0

        def over() -> None:
            disk.slow_max_s = usual

        self._during("slow-disk", "-", self._random.uniform(0.5, 4.0), over)
