"""How this coordinator's member comes to belong to a cluster: found one, join one, or return to its own.

::

    own data      given                     way
    ────────────  ────────────────────────  ──────────────────────────────────────────────────────────
    PRESENT       –                         start etcd; it finds its peers by itself (but see `returning`)
    FORMING, WAL  –                         finish the interrupted start in the same way
    PRESENT, old  others                    as LOST: an older copy of the data is put aside, never started
    FRESH         bootstrap                 found alone, once nobody who could know of a cluster is left to ask;
                                            join if there is one (core.membership.founding)
    FRESH         bootstrap-expect          ask all founders; found together or join (core.membership.founding, or
                                            named_founding where a name in DNS stands for them)
    FRESH         join addresses            JoinRaftCluster at any of them → learner → promoted by the leader
    LOST          join addresses            the same, as a newcomer that replaces its lost member
    LEFT, removed rejoin                    the same, as a newcomer; its old data are put aside
    LEFT, removed –                         refuse, and say how to join again (`rejoining`)
    FOREIGN       –                         refuse

The marker outside etcd's directory is written before etcd first starts (FORMING) and when its member is a
voter (BOOTSTRAPPED), so an emptied directory is told from a new one. Waiting never ends by guessing: if
the others cannot be asked, this coordinator waits and says for whom.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from loguru import logger

from cloudless import __version__
from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.host.disk import FsyncTimes
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.founders import read_word, write_word
from cloudless.adapters.member.marker import DataState, Marker, MarkerState, judge_data
from cloudless.adapters.member.process import end_orphan
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.supervisor import MemberSupervisor
from cloudless.coordinator.asking import ask_formation, call_once
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.coordinator.disk_probe import probe_disk
from cloudless.coordinator.neighbours import Neighbours, Round, describe_failures
from cloudless.coordinator.progress import ProgressTable
from cloudless.coordinator.rejoining import check_rejoin
from cloudless.coordinator.starting import MemberStart
from cloudless.core.membership.founding import (
    Founder,
    Founding,
    Standing,
    Verdict,
    decide_founding,
    find_bootstrap_hindrance,
)
from cloudless.core.membership.named_founding import NamedFounder, decide_named_founding
from cloudless.errors import CloudlessError, DataLost, FormationRefused, MemberFailed, MemberRemoved, VersionRefused
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.settings import CoordinatorSettings
from etcd.find import Found

JOIN_TRIES_MAX = 5
"""How often a joiner asks for another place when etcd will not start in the one it got, before it gives up."""
RETRY_PAUSE_S = 0.25
RETRY_PAUSE_MAX_S = 2.0
# Short: a founder that looks rarely finds the others done and has to join the long way.
FOUNDING_PAUSE_MAX_S = 0.4

_STANDINGS = {
    DataState.FRESH: Standing.FRESH,
    DataState.FORMING: Standing.FORMING,
    DataState.PRESENT: Standing.MEMBER,
    DataState.FOREIGN: Standing.MEMBER,
    DataState.LOST: Standing.LOST,
    DataState.LEFT: Standing.FRESH,
}


class Formation:
    """Brings one member into its cluster; `standing` answers the other founders meanwhile."""

    def __init__(self, settings: CoordinatorSettings, datadir: DataDir, binary: Found, own: OwnCredentials) -> None:
        self._settings, self.datadir, self._binary, self._own = settings, datadir, binary, own
        self.binary = binary
        self._token = ""
        # While it asks for a new place, what it has counts for nothing: it will be put aside.
        self._gives_up_data = False
        self._neighbours = Neighbours(settings, datadir, partial(ask_formation, own.dialler))
        self.member = MemberStart(settings, datadir, binary, own, self._neighbours)
        self._founders = (
            read_word(datadir.founders) if self._neighbours.dynamic else tuple(sorted(settings.join_addresses))
        )
        self.progress = ProgressTable(Progress.read(datadir.progress).heard)
        self.done = False
        self.disk_speed: FsyncTimes | None = None

    @property
    def waiting_for(self) -> str:
        """What is waited for, as last said; "" if nothing has been."""
        return self.member.waiting.said

    @property
    def supervisor(self) -> MemberSupervisor | None:
        return self.member.supervisor

    @property
    def admin(self) -> EtcdAdmin:
        return self.member.admin

    # --- what the others may ask ---

    def standing(self) -> pb.GetFormationResponse:
        """Return what this node brings to the forming of a cluster."""
        standing = Standing.MEMBER if self.done else _STANDINGS[judge_data(self.datadir)]
        if self._gives_up_data and standing is not Standing.FRESH:
            standing = Standing.LOST
        status = None if self.done else self.member.status  # from then on it gets old
        marker = Marker.read(self.datadir.marker)
        return pb.GetFormationResponse(
            node_id=self._settings.node_id,
            raft_address=self._settings.raft_address,
            phase=standing.value,
            founders=self._founders if self._settings.bootstrap_expect else (),
            founders_expected=self._settings.bootstrap_expect if self._neighbours.dynamic else 0,
            cluster_token=self._token,
            instance_id=self._neighbours.instance_id,
            etcd_cluster_id=marker.cluster_id or self.member.cluster_id,
            heard=[
                pb.HeardMember(node_id=node_id, member_id=int(said.member_id, 16), raft_index=said.raft_index)
                for node_id, said in sorted(self.progress.heard.items())
            ],
            supersedes=marker.supersedes,
            member_id=int(marker.member_id or "0", 16) if self.datadir.has_wal() and not self._gives_up_data else 0,
            raft_index=status.raft_applied_index if status else 0,
            serves=self.done,
        )

    # --- forming ---

    async def form(self) -> MemberSupervisor:
        """Return the supervisor of a member that votes; wait as long as it takes. Raises StartupError."""
        self.disk_speed = await probe_disk(self.datadir.path, self._settings.profile)
        enter, tries = self._enter(), 1
        while True:
            try:
                await enter
                await self.member.await_voter()
                break
            except MemberRemoved:
                await check_rejoin(self._settings, Marker.read(self.datadir.marker), self._neighbours)
                enter = self._rejoin("removed")
            except MemberFailed as error:
                if not self._had_only_a_place() or tries >= JOIN_TRIES_MAX:
                    raise
                tries += 1
                logger.warning(
                    "etcd does not start in the place this coordinator was given: {}; was its member removed "
                    "meanwhile? It asks to join again ({} of {})",
                    error.message.splitlines()[0],
                    tries,
                    JOIN_TRIES_MAX,
                )
                await asyncio.sleep(RETRY_PAUSE_MAX_S)
                enter = self._rejoin("refused")
        self.done = True
        assert self.supervisor is not None
        return self.supervisor

    def _had_only_a_place(self) -> bool:
        """Return whether this is a joiner whose etcd ended before it had a log.

        It compares the members it was told of with those there are, and ends if they differ: when its own was removed
        after the answer, or another was added. The next answer is of then.
        """
        marker = Marker.read(self.datadir.marker)
        return marker.state is MarkerState.FORMING and bool(marker.member_id) and not self.datadir.has_wal()

    async def _enter(self) -> None:
        state = judge_data(self.datadir)
        marker = Marker.read(self.datadir.marker)
        self.member.cluster_id = marker.cluster_id
        if state is DataState.FOREIGN:
            raise FormationRefused(
                f"{self.datadir.etcd_dir} holds data of a member that this coordinator did not make",
                hint="give CLOUDLESS_DATA_DIR an empty directory, or bring back the data's own member.json",
            )
        if state is DataState.PRESENT or (state is DataState.FORMING and self.datadir.has_wal()):
            await self._return(marker)
        elif state is DataState.LOST:
            logger.warning("etcd's data is gone: joining anew in place of the lost member")
            await self._join()
        elif state is DataState.LEFT:
            await check_rejoin(self._settings, marker, self._neighbours)
            await self._rejoin("left")
        else:
            await self._form_fresh()

    async def _rejoin(self, why: str) -> None:
        """Join as a new member; what is left of the old one is put aside."""
        if self.supervisor is not None:
            await self.supervisor.stop()
        self.member.status = None
        if self.datadir.etcd_dir.exists():
            self._put_aside(why)
        await self._join()

    def put_away(self, cluster_id: str) -> None:
        """Keep what is left of a member that has left for good, so that it is not started again by mistake."""
        marker = Marker.read(self.datadir.marker)
        replace(marker, state=MarkerState.LEFT, cluster_id=marker.cluster_id or cluster_id).write(self.datadir.marker)
        if self.datadir.etcd_dir.exists():
            self._put_aside("left")

    async def _return(self, marker: Marker) -> None:
        outdated = await self.member.returning.find_outdated(marker)
        if outdated:
            logger.error(
                "these are not this node's data of today: {}; they are put aside once the others let a new member in",
                outdated,
            )
            answer = await self._ask_to_join()  # first: where too many are old, these may be all there is
            await end_orphan(self.datadir.pidfile, str(self.datadir.etcd_dir))
            self._put_aside("outdated")
            return await self._start_as_learner(answer)
        routes = await self.member.returning.announce_address(marker)
        if routes:
            await self.member.open_relay(routes)
        await self.member.start(replace(self.member.config, initial_cluster=marker.initial_cluster))

    async def _form_fresh(self) -> None:
        if self._settings.bootstrap:
            await self._bootstrap()
        elif self._settings.bootstrap_expect:
            await (self._found_by_name() if self._neighbours.dynamic else self._found_together())
        elif self._settings.join_addresses:
            await self._join()
        else:
            raise FormationRefused(
                "this coordinator has no data and was not told how to get a cluster",
                hint="set CLOUDLESS_BOOTSTRAP=true on the first one, CLOUDLESS_RAFT_JOIN_ADDR on the others, or "
                "CLOUDLESS_BOOTSTRAP_EXPECT=3 with the same three addresses on all",
            )

    async def _bootstrap(self) -> None:
        pause_s = RETRY_PAUSE_S
        while True:
            round = await self._ask_others()
            if round.members:
                logger.info("a cluster exists already: joining it instead of founding a second one")
                return await self._join()
            standings = {address: Standing(answer.phase) for address, answer in round.answers.items()}
            silent = [*round.silent, *self._neighbours.unresolved()]
            hindrance = find_bootstrap_hindrance(standings, silent, round.who.own, self._neighbours.remembered())
            if not hindrance:
                break
            self.member.waiting.say(f"told to found a cluster, but {hindrance}")
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 1.3, RETRY_PAUSE_MAX_S)
        members = ((self._settings.node_id, self.member.config.peer_advertise_url),)
        # A token of its own each time: etcd's ids derive from it, so a founder that lost its disk and founds again
        # can never be taken for the member it was.
        await self._found(Founding(Verdict.FOUND, members, f"cloudless-{secrets.token_hex(8)}"))

    async def _found_together(self) -> None:
        expected = self._settings.join_addresses
        pause_s = RETRY_PAUSE_S
        while True:
            own = _to_founder(self.standing())
            if await self._follow(decide_founding(own, expected, await self._ask_all(), scheme=self._own.etcd_scheme)):
                return
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 1.3, FOUNDING_PAUSE_MAX_S)

    async def _found_by_name(self) -> None:
        pause_s = RETRY_PAUSE_S
        while True:
            own = _to_founder(self.standing())
            round = await self._ask_others()
            told = {
                address: NamedFounder(_to_founder(answer), answer.founders_expected)
                for address, answer in round.answers.items()
            }
            word, founding = decide_named_founding(
                own, self._settings.bootstrap_expect, self._founders, told, scheme=self._own.etcd_scheme
            )
            if word != self._founders:
                await asyncio.to_thread(write_word, self.datadir.founders, word)
                self._founders = word
            unresolved = "; ".join(self._neighbours.unresolved())
            if await self._follow(replace(founding, reason="; ".join(filter(None, (founding.reason, unresolved))))):
                return
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 1.3, FOUNDING_PAUSE_MAX_S)

    async def _follow(self, founding: Founding) -> bool:
        """Do what was decided; return whether that ends the founding. Raises FormationRefused."""
        match founding.verdict:
            case Verdict.FOUND:
                await self._found(founding)
            case Verdict.JOIN:
                await self._join()
            case Verdict.REFUSE:
                raise FormationRefused(
                    f"cannot found a cluster: {founding.reason}",
                    hint="give all founders the same CLOUDLESS_RAFT_JOIN_ADDR and distinct node ids",
                )
            case Verdict.WAIT:
                self.member.waiting.say(founding.reason)
        return founding.verdict is not Verdict.WAIT

    async def _found(self, founding: Founding) -> None:
        self._token = founding.token
        marker = Marker(
            state=MarkerState.FORMING,
            node_id=self._settings.node_id,
            cluster_token=founding.token,
            initial_cluster=founding.initial_cluster,
        )
        marker.write(self.datadir.marker)
        logger.info("founding a cluster of {}", ", ".join(name for name, _ in founding.initial_cluster))
        config = replace(
            self.member.config,
            initial_cluster=founding.initial_cluster,
            initial_cluster_state="new",
            cluster_token=founding.token,
        )
        await self.member.start(config)

    async def _join(self) -> None:
        if not self._neighbours.any:
            raise DataLost(
                "etcd's data is gone and no other coordinator is known",
                hint="set CLOUDLESS_RAFT_JOIN_ADDR to the others, or restore a backup",
            )
        self._clear_member_data()
        await self._start_as_learner(await self._ask_to_join())

    async def _start_as_learner(self, answer: pb.JoinRaftClusterResponse) -> None:
        members = tuple((member.name, member.peer_url) for member in answer.initial_cluster)
        marker = Marker(
            state=MarkerState.FORMING,
            node_id=self._settings.node_id,
            member_id=f"{answer.member_id:x}",
            cluster_id=f"{answer.etcd_cluster_id:x}",
            cluster_token=answer.cluster_token,
            initial_cluster=members,
            supersedes=await self._ask_supersedes(f"{answer.etcd_cluster_id:x}"),
        )
        marker.write(self.datadir.marker)
        self._gives_up_data = False
        self.member.cluster_id = marker.cluster_id
        logger.info("joining as a learner of cluster {:x}", answer.etcd_cluster_id)
        await self.member.start(replace(self.member.config, initial_cluster=members, initial_cluster_state="existing"))

    async def _ask_supersedes(self, cluster_id: str) -> tuple[str, ...]:
        """Return which clusters the one we join was rebuilt from, by the word of its members: all must know it."""
        answers = (await self._neighbours.ask()).answers
        said = [answer.supersedes for answer in answers.values() if answer.etcd_cluster_id == cluster_id]
        return tuple(sorted({old for olds in said for old in olds}))

    def _clear_member_data(self) -> None:
        """A joiner's member is new: what is left of an earlier one is put aside, never deleted."""
        if self.datadir.has_wal():
            raise FormationRefused(f"{self.datadir.etcd_dir} holds a member's data: refusing to join as a new one")
        if self.datadir.etcd_dir.exists() and any(self.datadir.etcd_dir.iterdir()):
            self._put_aside("remnant")

    def _put_aside(self, why: str) -> None:
        aside = self.datadir.path / f"etcd.{why}-{secrets.token_hex(4)}"
        self.datadir.etcd_dir.rename(aside)
        logger.warning("data of an earlier member moved to {}", aside)

    async def _ask_to_join(self) -> pb.JoinRaftClusterResponse:
        request = pb.JoinRaftClusterRequest(
            node_id=self._settings.node_id,
            raft_address=self._settings.raft_address,
            empty=True,
            version=__version__,
            etcd_version=str(self._binary.version),
            api_address=self._settings.advertise_address,
        )
        pause_s, self._gives_up_data = RETRY_PAUSE_S, True
        while True:
            round = await self._ask_others()
            refusals = {}
            for address in random.sample(round.members, len(round.members)):
                try:
                    answer = await call_once(
                        self._own.dialler, address, lambda stub: stub.JoinRaftCluster(request, timeout=10.0)
                    )
                except (FormationRefused, VersionRefused):
                    raise
                except CloudlessError as error:
                    refusals[address] = error.message
                else:
                    if round.answers[address].etcd_cluster_id in ("", f"{answer.etcd_cluster_id:x}"):
                        return answer
                    refusals[address] = "lets us into another cluster than it said it belongs to"
            said = describe_failures(round, refusals, self._neighbours.unresolved())
            self.member.waiting.say(f"waiting to join ({said})")
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 1.3, RETRY_PAUSE_MAX_S)

    async def _ask_all(self) -> Mapping[str, Founder]:
        """Ask every given address what it brings; the own one is answered here. Silent ones are left out."""
        answers = await ask_formation(self._own.dialler, self._settings.join_addresses)
        return {address: _to_founder(answer) for address, answer in answers.items()}

    async def _ask_others(self) -> Round:
        """Ask all that seeds and memory lead to. Raises FormationRefused if these are of two clusters or of another."""
        round = await self._neighbours.ask()
        if round.who.refusal:
            raise FormationRefused(
                round.who.refusal,
                hint="give CLOUDLESS_RAFT_JOIN_ADDR only coordinators of the cluster that is meant; a node that shall "
                "leave its own cluster for another one starts with an empty CLOUDLESS_DATA_DIR",
            )
        return round


def _to_founder(answer: pb.GetFormationResponse) -> Founder:
    return Founder(
        node_id=answer.node_id,
        raft_address=answer.raft_address,
        standing=Standing(answer.phase),
        expects=tuple(answer.founders),
        token=answer.cluster_token,
        instance_id=answer.instance_id,
    )
