"""How this coordinator's member comes to belong to a cluster: found one, join one, or return to its own.

::

    own data      given                     way
    ────────────  ────────────────────────  ──────────────────────────────────────────────────────────
    PRESENT       –                         start etcd; it finds its peers by itself (but see `returning`)
    FORMING, WAL  –                         finish the interrupted start in the same way
    PRESENT, old  others                    as LOST: an older copy of the data is put aside, never started
    FRESH         bootstrap                 found alone, unless a join address already has a cluster
    FRESH         bootstrap-expect          ask all founders; found together or join (core.membership.founding)
    FRESH         join addresses            JoinRaftCluster at any of them → learner → promoted by the leader
    LOST          join addresses            the same, as a newcomer that replaces its lost member
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
from dataclasses import dataclass, replace

from loguru import logger

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import DataState, Marker, MarkerState, judge_data
from cloudless.adapters.member.process import end_orphan
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.supervisor import MemberSupervisor
from cloudless.coordinator.asking import ask_formation, call_once, resolve_all
from cloudless.coordinator.progress import ProgressTable
from cloudless.coordinator.returning import Returning
from cloudless.core.membership.founding import Founder, Founding, Standing, Verdict, decide_founding
from cloudless.errors import CloudlessError, DataLost, FormationRefused, MemberFailed, StoreTimeout
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.settings import CoordinatorSettings
from etcd.find import Found
from etcd.flags import MemberConfig, gateway_url
from etcd.profiles import PROFILES

RETRY_PAUSE_S = 0.25
RETRY_PAUSE_MAX_S = 2.0
# Short: a founder that looks rarely finds the others done and has to join the long way.
FOUNDING_PAUSE_MAX_S = 0.4
SAY_WAITING_EVERY_S = 10.0

_STANDINGS = {
    DataState.FRESH: Standing.FRESH,
    DataState.FORMING: Standing.FORMING,
    DataState.PRESENT: Standing.MEMBER,
    DataState.FOREIGN: Standing.MEMBER,
    DataState.LOST: Standing.LOST,
}


@dataclass(slots=True)
class _Waiting:
    """Says what is waited for when that changes, and again now and then."""

    said: str = ""
    said_s: float = 0.0

    def say(self, reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if reason != self.said or now_s - self.said_s > SAY_WAITING_EVERY_S:
            logger.info("forming: {}", reason)
            self.said, self.said_s = reason, now_s


class Formation:
    """Brings one member into its cluster; `standing` answers the other founders meanwhile."""

    def __init__(self, settings: CoordinatorSettings, datadir: DataDir, binary: Found) -> None:
        self._settings, self.datadir, self._binary = settings, datadir, binary
        self.binary = binary
        self._config = self._base_config()
        self._token = ""
        self._waiting = _Waiting()
        self._returning = Returning(settings, datadir, self._waiting.say)
        self.progress = ProgressTable(Progress.read(datadir.progress).heard)
        self.supervisor: MemberSupervisor | None = None
        self.admin = EtcdAdmin(gateway_url(self._config, binary.version))
        self.done = False

    # --- what the others may ask ---

    def standing(self) -> pb.GetFormationResponse:
        """Return what this node brings to the forming of a cluster."""
        standing = Standing.MEMBER if self.done else _STANDINGS[judge_data(self.datadir)]
        marker = Marker.read(self.datadir.marker)
        return pb.GetFormationResponse(
            node_id=self._settings.node_id,
            raft_address=self._settings.raft_address,
            phase=standing.value,
            founders=sorted(self._settings.join_addresses) if self._settings.bootstrap_expect else [],
            cluster_token=self._token,
            heard=[
                pb.HeardMember(node_id=node_id, member_id=int(said.member_id, 16), raft_index=said.raft_index)
                for node_id, said in sorted(self.progress.heard.items())
            ],
            etcd_cluster_id=marker.cluster_id,
            supersedes=marker.supersedes,
        )

    # --- forming ---

    async def form(self) -> MemberSupervisor:
        """Return the supervisor of a member that votes; wait as long as it takes. Raises StartupError."""
        state = judge_data(self.datadir)
        marker = Marker.read(self.datadir.marker)
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
        else:
            await self._form_fresh()
        await self._await_voter()
        self.done = True
        assert self.supervisor is not None
        return self.supervisor

    async def _return(self, marker: Marker) -> None:
        outdated = await self._returning.find_outdated(marker)
        if outdated:
            logger.error(
                "these are not this node's data of today: {}; they are put aside once the others let a new member in",
                outdated,
            )
            answer = await self._ask_to_join()  # first: where too many are old, these may be all there is
            await end_orphan(self.datadir.pidfile, str(self.datadir.etcd_dir))
            self._put_aside("outdated")
            return await self._start_as_learner(answer)
        await self._returning.announce_address()
        await self._start(replace(self._config, initial_cluster=marker.initial_cluster), marker)

    async def _form_fresh(self) -> None:
        if self._settings.bootstrap:
            await self._bootstrap()
        elif self._settings.bootstrap_expect:
            await self._found_together()
        elif self._settings.join_addresses:
            await self._join()
        else:
            raise FormationRefused(
                "this coordinator has no data and was not told how to get a cluster",
                hint="set CLOUDLESS_BOOTSTRAP=true on the first one, CLOUDLESS_RAFT_JOIN_ADDR on the others, or "
                "CLOUDLESS_BOOTSTRAP_EXPECT=3 with the same three addresses on all",
            )

    async def _bootstrap(self) -> None:
        answers = await self._ask_all()
        if any(answer.standing is Standing.MEMBER for answer in answers.values()):
            logger.info("a cluster exists already: joining it instead of founding a second one")
            await self._join()
            return
        members = ((self._settings.node_id, self._config.peer_advertise_url),)
        # A token of its own each time: etcd's ids derive from it, so a founder that lost its disk and founds again
        # can never be taken for the member it was.
        await self._found(Founding(Verdict.FOUND, members, f"cloudless-{secrets.token_hex(8)}"))

    async def _found_together(self) -> None:
        expected = self._settings.join_addresses
        pause_s = RETRY_PAUSE_S
        while True:
            own = _to_founder(self.standing())
            answers = await self._ask_all()
            verdict = decide_founding(own, expected, answers)
            match verdict.verdict:
                case Verdict.FOUND:
                    return await self._found(verdict)
                case Verdict.JOIN:
                    return await self._join()
                case Verdict.REFUSE:
                    raise FormationRefused(
                        f"cannot found a cluster: {verdict.reason}",
                        hint="give all founders the same CLOUDLESS_RAFT_JOIN_ADDR and distinct node ids",
                    )
                case Verdict.WAIT:
                    self._waiting.say(verdict.reason)
                    await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                    pause_s = min(pause_s * 1.3, FOUNDING_PAUSE_MAX_S)

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
            self._config,
            initial_cluster=founding.initial_cluster,
            initial_cluster_state="new",
            cluster_token=founding.token,
        )
        await self._start(config, marker)

    async def _join(self) -> None:
        if not self._returning.others:
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
        logger.info("joining as a learner of cluster {:x}", answer.etcd_cluster_id)
        await self._start(replace(self._config, initial_cluster=members, initial_cluster_state="existing"), marker)

    async def _ask_supersedes(self, cluster_id: str) -> tuple[str, ...]:
        """Return which clusters the one we join was rebuilt from, by the word of its members: all must know it."""
        answers = await ask_formation(self._settings.join_addresses or self._returning.others)
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
            etcd_version=str(self._binary.version),
        )
        pause_s = RETRY_PAUSE_S
        while True:
            addresses = await resolve_all(self._settings.join_addresses or self._returning.others)
            random.shuffle(addresses)
            refusals = {}
            for address in addresses:
                try:
                    return await call_once(address, lambda stub: stub.JoinRaftCluster(request, timeout=10.0))
                except FormationRefused:
                    raise
                except CloudlessError as error:
                    refusals[address] = error.message
            said = "; ".join(f"{address}: {why}" for address, why in sorted(refusals.items()))
            self._waiting.say(f"waiting to join ({said})")
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 1.3, RETRY_PAUSE_MAX_S)

    async def _ask_all(self) -> Mapping[str, Founder]:
        """Ask every given address what it brings; the own one is answered here. Silent ones are left out."""
        answers = await ask_formation(self._settings.join_addresses)
        return {address: _to_founder(answer) for address, answer in answers.items()}

    # --- starting and waiting ---

    async def _start(self, config: MemberConfig, marker: Marker) -> None:
        self.supervisor = MemberSupervisor(self._binary, config, self.datadir, log=_SupervisorLog())
        await self.supervisor.start()

    async def _await_voter(self) -> None:
        """Wait until our member answers and votes, then write that down."""
        assert self.supervisor is not None
        supervising = asyncio.create_task(self.supervisor.run(), name="member-supervision-while-forming")
        try:
            await self._await_answer()
            while True:
                try:
                    status = await self.admin.status()
                    if not status.is_learner and status.leader_id:
                        break
                    self._waiting.say(
                        "waiting to be promoted to voter" if status.is_learner else "waiting for etcd's leader"
                    )
                except CloudlessError as error:
                    self._waiting.say(f"waiting for etcd: {error.message}")
                await asyncio.sleep(0.1)
        finally:
            supervising.cancel()
            await asyncio.wait([supervising])
        marker = Marker.read(self.datadir.marker)
        self._check_cluster(marker, status.cluster_id)
        replace(
            marker,
            state=MarkerState.BOOTSTRAPPED,
            node_id=self._settings.node_id,
            member_id=f"{status.member_id:x}",
            cluster_id=f"{status.cluster_id:x}",
        ).write(self.datadir.marker)
        # At once, not with the first note: it may be stopped and moved before that.
        noted = Progress.read(self.datadir.progress)
        replace(noted, peer_url=self._config.peer_advertise_url).write(self.datadir.progress)
        logger.info("member {:x} votes in cluster {:x}", status.member_id, status.cluster_id)

    async def _await_answer(self) -> None:
        assert self.supervisor is not None
        while True:
            try:
                return await self.supervisor.wait_ready(5.0)
            except StoreTimeout:
                self._waiting.say("etcd runs and waits for a quorum of its peers")
            except MemberFailed as error:
                if not self.datadir.has_wal():
                    raise
                raise MemberFailed(
                    error.message,
                    hint=f"if its data are damaged: empty {self.datadir.etcd_dir} and start again; the member is then "
                    "replaced, as long as the others have a quorum",
                ) from error

    def _check_cluster(self, marker: Marker, cluster_id: int) -> None:
        if marker.cluster_id and marker.cluster_id != f"{cluster_id:x}":
            raise DataLost(
                f"{self.datadir.etcd_dir} holds data of cluster {cluster_id:x}, not of {marker.cluster_id}",
                hint="bring back the right data, or empty the data directory and join again",
            )

    def _base_config(self) -> MemberConfig:
        profile = PROFILES[self._settings.profile]
        listen_host, _, listen_port = self._settings.raft_bind_address.rpartition(":")
        return MemberConfig(
            name=self._settings.node_id,
            data_dir=str(self.datadir.etcd_dir),
            peer_listen_url=f"http://{_listen_ip(listen_host)}:{listen_port}",
            peer_advertise_url=f"http://{self._settings.raft_address}",
            client_url=f"http://{self._settings.etcd_client_address}",
            initial_cluster=(),
            initial_cluster_state="existing",
            cluster_token="cloudless",
            heartbeat_ms=profile.heartbeat_ms,
            election_ms=profile.election_ms,
        )


class _SupervisorLog:
    """The supervisor's log lines in the coordinator's log."""

    def info(self, message: str, /) -> None:
        logger.info("etcd: {}", message)

    def warning(self, message: str, /) -> None:
        logger.warning("etcd: {}", message)


def _to_founder(answer: pb.GetFormationResponse) -> Founder:
    return Founder(
        node_id=answer.node_id,
        raft_address=answer.raft_address,
        standing=Standing(answer.phase),
        expects=tuple(answer.founders),
        token=answer.cluster_token,
    )


def _listen_ip(host: str) -> str:
    """etcd listens on addresses only, not names: a name listens on all of this machine's."""
    return host if host.replace(".", "").isdigit() or host.startswith("[") else "0.0.0.0"
