"""Operators and fate: hosts join, leave, die and are replaced, lose their data; identities are revoked, CAs replaced.

What happens is in the options, one act after another; whom it hits is drawn as it comes. Fate takes nothing for good
of which the cluster could not live: a majority of the members keeps its data, whatever is being changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from random import Random
from typing import Any

from cloudless.coordinator.api.access import Decided
from cloudless.core.identity.plans import plan_token
from cloudless.core.model import Role, TokenRecord
from cloudless.errors import CloudlessError, Conflict, NotFound
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import common_pb2, identity_pb2
from cloudless.testing.sim.happenings import Acted, Disturbed, Soothed
from cloudless.testing.sim.loop import Process
from cloudless.testing.sim.papers import Guest, PaperDisk
from cloudless.testing.sim.world import USERS, World

ASK_PAUSE_S = 0.7
ASK_TIMEOUT_S = 12.0
WANTED_MAX = 5
POWER_OFF_S = (0.5, 12.0)
ACT_PATIENCE_S = 8.0
LEAVE_TRIES = 4
HELP_PERIOD_S = 1.0
HEARS_S = 5.0
CROWD = 4
CROWD_USES = 2


class Operator:
    """Does the acts of one world. `run` until the faults end, then `settle`."""

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._under_way: set[asyncio.Task[None]] = set()
        self._requests = 0
        self.guests: list[Guest] = []

    async def run(self) -> None:
        options = self._world.options
        plans: list[Awaitable[None]] = []
        if options.membership is not None:
            plans.append(self._play(options.membership.acts, options.membership.act_pause_s))
        if options.certificates is not None:
            plans.append(self._play(options.certificates.acts, options.certificates.act_pause_s))
        await asyncio.gather(*plans)

    async def _play(self, acts: tuple[str, ...], pause_s: float) -> None:
        for act in acts:
            await asyncio.sleep(self._random.expovariate(1 / pause_s))
            work = getattr(self, "_" + act.replace("-", "_"))()
            task: asyncio.Task[None] = asyncio.ensure_future(work)
            self._under_way.add(task)
            await asyncio.wait([task], timeout=ACT_PATIENCE_S)

    async def settle(self) -> None:
        """End what only lasts, and wait until all that was begun is done."""
        roster = self._world.roster
        if roster is not None:
            for host in list(roster.wanted):
                roster.power_on(host)
        for task in list(self._under_way):
            await task

    async def help(self) -> None:
        """Let in anew, by a token, whoever cannot come back by itself, until cancelled."""
        world, trust = self._world, self._world.trust
        assert trust is not None
        while True:
            await asyncio.sleep(HELP_PERIOD_S)
            for life in world.living():
                if not trust.is_stranded(life.id):
                    continue
                role = Role.AGENT if life.id in world.node_ids else Role.COORDINATOR
                token = await self._create_token(role, names=(life.id,))
                self._note("help", life.id)
                if trust.disks[life.id].held is None:
                    trust.disks[life.id].token, trust.disks[life.id].useless = token, False
                else:
                    world.kill(life.id, told=True)
                    trust.disks[life.id] = PaperDisk(token=token)
                    world.start(life.id)

    def check(self) -> None:
        """Raise what an act failed with, if it was a bug."""
        for task in self._under_way:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    def _note(self, act: str, who: str) -> None:
        self._world.trace.note("-", f"{act} {who}")
        self._world.tell(Acted(act, who))

    # --- asking the cluster ---

    async def _ask(self, service: str, method: str, request: Any, *, of: str = "") -> Any:
        """Ask one coordinator, any if `of` is "". Raises CloudlessError, TimeoutError."""
        target = of or self._random.choice(self._world.coordinator_ids)
        return await self._world.call_between(
            USERS, self._world.address_of(target), service, method, request, ASK_TIMEOUT_S
        )

    # --- members ---

    async def _join(self) -> None:
        roster = self._world.roster
        assert roster is not None
        if len(roster.wanted) >= WANTED_MAX:
            return
        trust = self._world.trust
        token = await self._create_token(Role.COORDINATOR) if trust is not None else ""
        host = roster.add()
        self._note("join", host)
        if trust is not None:
            trust.disks[host] = PaperDisk(token=token)
        self._world.start(host)

    def _serving(self) -> list[str]:
        roster = self._world.roster
        assert roster is not None
        return [host for host in roster.wanted if roster.cluster.votes(host)]

    async def _leave(self) -> None:
        await self._go("leave")

    async def _remove(self) -> None:
        await self._go("remove")

    async def _go(self, how: str) -> None:
        """A coordinator leaves by itself, or is removed by word of another; asked again until it is done."""
        roster = self._world.roster
        assert roster is not None
        serving = self._serving()
        if len(serving) < 2 or len(roster.wanted) < 2:
            return
        host = self._random.choice(serving)
        if not roster.can_lose(host, removed=True):
            return
        self._note(how, host)
        roster.disks[host].rejoins = False
        roster.wanted.remove(host)

        async def ask(tries: int) -> None:
            if how == "leave" and tries < LEAVE_TRIES:  # then it is off, and others have to do it
                await self._ask("ClusterService", "LeaveCluster", pb.LeaveClusterRequest(coordinator_id=host), of=host)
            else:
                others = [name for name in roster.wanted if name != host]
                request = pb.RemoveMemberRequest(coordinator_id=host)
                await self._ask("ClusterService", "RemoveMember", request, of=self._random.choice(others))

        tries = 0
        while roster.cluster.belongs(host):
            tries += 1
            with contextlib.suppress(CloudlessError, TimeoutError):
                await ask(tries)
            await asyncio.sleep(ASK_PAUSE_S)
        await asyncio.sleep(HEARS_S)  # it hears of it by itself, or never, if nobody reaches it
        roster.retire(host)

    def _find_mortal(self) -> str:
        """Return a host that may be lost, "" if none may."""
        roster = self._world.roster
        assert roster is not None
        mortal = [host for host in roster.wanted if roster.has_data(host) and roster.can_lose(host)]
        return self._random.choice(mortal) if mortal else ""

    async def _die(self) -> None:
        roster, host = self._world.roster, self._find_mortal()
        if host and roster is not None:
            self._note("die", host)
            roster.die(host)

    async def _replace(self) -> None:
        """A host dies for good; its operator gives it up and brings a new one, in either order."""
        roster, host = self._world.roster, self._find_mortal()
        if not host or roster is None:
            return
        voted = roster.cluster.votes(host)
        self._note("replace", host)
        roster.die(host)
        first = self._random.random() < 0.5
        if first:
            await self._join()
        if voted:
            new_id = self._world.coordinator_ids[-1] if first and self._random.random() < 0.5 else ""
            await self._give_up(host, new_id)
        if not first:
            await self._join()

    async def _give_up(self, host: str, new_id: str) -> None:
        roster = self._world.roster
        assert roster is not None
        request = pb.ReplaceMemberRequest(
            coordinator_id=host,
            new_coordinator_id=new_id,
            options=common_pb2.WriteOptions(request_id=self._request_id()),
        )
        while True:
            try:
                await self._ask("ClusterService", "ReplaceMember", request)
                return
            except NotFound:
                return  # removed by itself meanwhile
            except (CloudlessError, TimeoutError):
                if not any(seat.host == host for seat in roster.cluster.members.values()):
                    return
                await asyncio.sleep(ASK_PAUSE_S)

    async def _wipe(self) -> None:
        """A host loses etcd's data and comes back empty."""
        roster, host = self._world.roster, self._find_mortal()
        if not host or roster is None:
            return
        self._note("wipe", host)
        roster.power_off(host)
        roster.wipe(host)
        await asyncio.sleep(self._random.uniform(*POWER_OFF_S))
        roster.power_on(host)

    async def _power_off(self) -> None:
        roster = self._world.roster
        assert roster is not None
        host = self._random.choice(roster.wanted)
        self._note("power-off", host)
        roster.power_off(host)
        await asyncio.sleep(self._random.uniform(*POWER_OFF_S))
        roster.power_on(host)

    # --- certificates ---

    def _request_id(self) -> str:
        self._requests += 1
        return f"operator-{self._requests}"

    async def _create_token(self, role: Role, *, uses: int = 1, names: tuple[str, ...] = ()) -> str:
        """Create a token as `CreateToken` does, its secret drawn from the seed; return its text."""
        trust = self._world.trust
        assert trust is not None
        while True:
            life = self._world.find_serving(self._random.choice(self._world.coordinator_ids))
            if life is not None and life.replica.loaded.is_set():
                token, record = trust.draw_token(role, uses=uses, now_ms=life.clock.wall_ms(), names=names)
                made = life.process.spawn(self._write_token(life, record))
                await asyncio.wait([made], timeout=ASK_TIMEOUT_S)
                if made.done() and made.result() and token.id in self._world.truth.tokens:
                    return token.text
            await asyncio.sleep(ASK_PAUSE_S)

    async def _write_token(self, life: Any, record: TokenRecord) -> bool:
        try:
            await life.access.write(
                common_pb2.WriteOptions(), record.id.encode(), lambda view: Decided(plan_token(view, record), {}), None
            )
            return True
        except CloudlessError:
            return False

    async def _revoke(self) -> None:
        """An agent is locked out; after a while it is let in anew, by a token that names it."""
        world, trust = self._world, self._world.trust
        assert trust is not None
        node_id = self._random.choice(world.node_ids)
        request = identity_pb2.RevokeIdentityRequest(
            kind="agent", name=node_id, reason="drawn", options=common_pb2.WriteOptions(request_id=self._request_id())
        )
        self._note("revoke", node_id)
        world.tell(Disturbed("revoke", node_id))
        while True:
            try:
                await self._ask("IdentityService", "RevokeIdentity", request)
                break
            except NotFound:
                return world.tell(Soothed("revoke", node_id))  # it never came in
            except (CloudlessError, TimeoutError):
                await asyncio.sleep(ASK_PAUSE_S)
        await asyncio.sleep(self._random.uniform(1.0, 6.0))
        token = await self._create_token(Role.AGENT, names=(node_id,))
        world.kill(node_id, told=True)
        trust.disks[node_id] = PaperDisk(token=token)
        self._note("readmit", node_id)
        world.start(node_id)
        world.tell(Soothed("revoke", node_id))
        return None

    async def _long_off(self) -> None:
        """An agent is off for about as long as a certificate lives."""
        world, options = self._world, self._world.options.certificates
        assert options is not None
        node_id = self._random.choice(world.node_ids)
        world.tell(Disturbed("long-off", node_id))
        world.kill(node_id, told=False)
        self._note("long-off", node_id)
        ends_s = world.loop.now_s + self._random.uniform(0.6, 1.3) * options.lifetime_s
        while world.loop.now_s < ends_s:
            await asyncio.sleep(0.2)
            world.kill(node_id, told=False)  # faults that end may start it
        world.start(node_id)
        world.tell(Soothed("long-off", node_id))

    async def _crowd(self) -> None:
        """More want in than a token has uses, all at once, while somebody may lead no longer."""
        world, trust = self._world, self._world.trust
        assert trust is not None
        token = await self._create_token(Role.AGENT, uses=CROWD_USES)
        self._note("crowd", token.split(".")[1])
        leaders = [life.id for life in world.coordinators.values() if life.scope_term and life.process.alive]
        if leaders and self._random.random() < 0.5:
            world.kill(leaders[0], told=True)
            world.loop.world_at(world.loop.now_s + 2.0, world.start, leaders[0])
        tasks = []
        for number in range(1, CROWD + 1):
            name = f"g{number}-{len(self.guests)}"
            process = Process(name, world.loop)
            clock = world.build_clock(trust.random)
            world.clocks[name] = clock
            seeds = [world.address_of(id) for id in world.coordinator_ids]
            self._random.shuffle(seeds)
            guest = Guest(name, PaperDisk(token=token), trust.asking(process, clock), seeds, clock)
            self.guests.append(guest)
            tasks.append(process.spawn(guest.run(), name))
        await asyncio.wait(tasks)

    async def _rotate(self) -> None:
        """Every CA is replaced by a new one."""
        request = identity_pb2.RotateCaRequest(options=common_pb2.WriteOptions(request_id=self._request_id()))
        self._note("rotate", "all")
        while True:
            try:
                await self._ask("IdentityService", "RotateCa", request)
                return
            except Conflict:
                return  # under way already
            except (CloudlessError, TimeoutError):
                await asyncio.sleep(ASK_PAUSE_S)
