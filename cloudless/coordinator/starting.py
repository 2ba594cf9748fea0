"""From the start of this coordinator's etcd until its member votes.

A member that was found, joined or came back is started in the same way, waited for with words for what it waits for,
and written down as a voter. If all members have moved at once, a relay leads them to each other first (`relocating`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from loguru import logger

from cloudless import __version__
from cloudless.adapters.etcd.admin import EtcdAdmin, MemberStatus
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.host.machine import look_at_machine
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import Marker, MarkerState
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.relay import Relay
from cloudless.adapters.member.supervisor import MemberSupervisor, Phase
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.coordinator.feature_level import require_fit
from cloudless.coordinator.member_share import prefer_etcd, share_of_memory
from cloudless.coordinator.neighbours import Neighbours
from cloudless.coordinator.rejoining import find_wait
from cloudless.coordinator.relocating import settle_addresses
from cloudless.coordinator.returning import Returning
from cloudless.core.discovery.addresses import is_ip, join_address, split_address
from cloudless.errors import CloudlessError, DataLost, MemberFailed, MemberRemoved, StoreTimeout
from cloudless.settings import CoordinatorSettings
from etcd.find import Found
from etcd.flags import MemberConfig, gateway_url
from etcd.profiles import PROFILES

SAY_WAITING_EVERY_S = 10.0
VOTER_PAUSE_S = 0.1
VOTER_PAUSE_MAX_S = 0.5
"""A learner may stand by for very long."""
ASK_WHY_EVERY_S = 5.0


@dataclass(slots=True)
class Waiting:
    """Says what is waited for when that changes, and again now and then."""

    said: str = ""
    said_s: float = 0.0

    def say(self, reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if reason != self.said or now_s - self.said_s > SAY_WAITING_EVERY_S:
            logger.info("forming: {}", reason)
            self.said, self.said_s = reason, now_s


class MemberStart:
    """One member on its way to its vote. `supervisor` is None before its first start."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        datadir: DataDir,
        binary: Found,
        own: OwnCredentials,
        neighbours: Neighbours,
    ) -> None:
        self._settings, self._datadir, self._binary, self._own = settings, datadir, binary, own
        self._neighbours, self.waiting = neighbours, Waiting()
        self.returning = Returning(settings, datadir, own, neighbours, self.waiting.say)
        self.config = build_config(settings, datadir, own)
        self.admin = EtcdAdmin(gateway_url(self.config, binary.version), own.etcd.own if own.etcd else None)
        self.supervisor: MemberSupervisor | None = None
        self.status: MemberStatus | None = None
        self.cluster_id = ""
        self._relay: Relay | None = None

    async def start(self, config: MemberConfig) -> None:
        """Start etcd. Raises StartupError."""
        self.supervisor = MemberSupervisor(
            self._binary, config, self._datadir, log=_SupervisorLog(), environment=self._relay_environment(),
            memory_limit_bytes=share_of_memory(look_at_machine()),
            on_started=prefer_etcd if self._settings.raise_priority else None,
        )  # fmt: skip
        await self.supervisor.start()

    def _relay_environment(self) -> dict[str, str]:
        return self._relay.environment() if self._relay else {}

    async def open_relay(self, routes: Mapping[str, str]) -> None:
        told = ", ".join(f"{old} is now {new}" for old, new in sorted(routes.items()))
        logger.warning("a majority of the members came back at other addresses: {}", told)
        self._relay = Relay(routes)
        await self._relay.start()

    async def _write_addresses_down(self) -> None:
        """Let the quorum that the relay made know the new addresses, then do without the relay."""
        assert self.supervisor is not None
        assert self._relay is not None
        status = await self.admin.status()
        await settle_addresses(self.admin, status.member_id, self.config.peer_advertise_url, self._relay.routes)
        logger.info("the cluster knows its members' new addresses")
        await self.supervisor.restart(environment={})
        await self._relay.close()
        self._relay = None
        await self._await_answer()

    async def await_voter(self) -> None:
        """Wait until our member answers and votes, then write that down. Raises VersionRefused."""
        assert self.supervisor is not None
        supervising = asyncio.create_task(self.supervisor.run(), name="member-supervision-while-forming")
        try:
            await self._await_answer()
            if self._relay is not None:
                await self._write_addresses_down()
            status = await self._poll_until_voting()
            await self._check_version()
        finally:
            supervising.cancel()
            await asyncio.wait([supervising])
        marker = Marker.read(self._datadir.marker)
        self._check_cluster(marker, status.cluster_id)
        self.cluster_id = f"{status.cluster_id:x}"
        replace(
            marker,
            state=MarkerState.BOOTSTRAPPED,
            node_id=self._settings.node_id,
            member_id=f"{status.member_id:x}",
            cluster_id=self.cluster_id,
        ).write(self._datadir.marker)
        # At once, not with the first note: it may be stopped and moved before that.
        noted = Progress.read(self._datadir.progress)
        replace(noted, peer_url=self.config.peer_advertise_url).write(self._datadir.progress)
        logger.info("member {:x} votes in cluster {:x}", status.member_id, status.cluster_id)

    async def _poll_until_voting(self) -> MemberStatus:
        assert self.supervisor is not None
        pause_s, asked_s, why = VOTER_PAUSE_S, asyncio.get_running_loop().time(), ""
        while True:
            try:
                status = self.status = await self.admin.status()
                if not status.is_learner and status.leader_id:
                    return status
                if status.is_learner and asyncio.get_running_loop().time() - asked_s > ASK_WHY_EVERY_S:
                    why = (
                        await find_wait(self._own.dialler, await self._neighbours.addresses(), self._settings.node_id)
                        or why
                    )
                    asked_s = asyncio.get_running_loop().time()
                learning = f"a learner: {why or 'waiting to be promoted to voter'}"
                self.waiting.say(learning if status.is_learner else "waiting for etcd's leader")
            except CloudlessError as error:
                self.waiting.say(f"waiting for etcd: {error.message}")
            self._check_not_removed()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.1, VOTER_PAUSE_MAX_S)

    def _check_not_removed(self) -> None:
        assert self.supervisor is not None
        if self.supervisor.state.phase is Phase.REMOVED:
            raise MemberRemoved(f"the cluster has removed the member of {self._settings.node_id}")

    async def _check_version(self) -> None:
        def say(reason: str) -> None:
            self._check_not_removed()
            self.waiting.say(reason)

        store = EtcdStore(self._settings.etcd_client_address, self._own.etcd_client)
        try:
            await require_fit(store, __version__, say)
        finally:
            await store.close()

    async def _await_answer(self) -> None:
        assert self.supervisor is not None
        while True:
            try:
                return await self.supervisor.wait_ready(5.0)
            except StoreTimeout:
                self.waiting.say("etcd runs and waits for a quorum of its peers")
                if self._relay is None and (routes := await self.returning.find_routes()):
                    await self.open_relay(routes)
                    await self.supervisor.restart(environment=self._relay_environment())
            except MemberFailed as error:
                if not self._datadir.has_wal():
                    raise
                raise MemberFailed(
                    error.message,
                    hint=f"if its data are damaged: empty {self._datadir.etcd_dir} and start again; the member is then "
                    "replaced, as long as the others have a quorum",
                ) from error

    def _check_cluster(self, marker: Marker, cluster_id: int) -> None:
        if marker.cluster_id and marker.cluster_id != f"{cluster_id:x}":
            raise DataLost(
                f"{self._datadir.etcd_dir} holds data of cluster {cluster_id:x}, not of {marker.cluster_id}",
                hint="bring back the right data, or empty the data directory and join again",
            )


def build_config(settings: CoordinatorSettings, datadir: DataDir, own: OwnCredentials) -> MemberConfig:
    """Return how the member runs, whichever way it comes to belong to a cluster."""
    profile = PROFILES[settings.profile]
    listen_host, listen_port = split_address(settings.raft_bind_address)
    return MemberConfig(
        name=settings.node_id,
        data_dir=str(datadir.etcd_dir),
        peer_listen_url=own.etcd_url(join_address(_listen_ip(listen_host), listen_port)),
        peer_advertise_url=own.etcd_url(settings.raft_address),
        client_url=own.etcd_url(settings.etcd_client_address),
        initial_cluster=(),
        initial_cluster_state="existing",
        cluster_token="cloudless",
        heartbeat_ms=profile.heartbeat_ms,
        election_ms=profile.election_ms,
        quota_bytes=settings.etcd_quota_mb << 20,
        client_tls=own.etcd.client if own.etcd else None,
        peer_tls=own.etcd.peer if own.etcd else None,
    )


class _SupervisorLog:
    """The supervisor's log lines in the coordinator's log."""

    def info(self, message: str, /) -> None:
        logger.info("etcd: {}", message)

    def warning(self, message: str, /) -> None:
        logger.warning("etcd: {}", message)


def _listen_ip(host: str) -> str:
    """etcd listens on addresses only, not names: a name listens on all of this machine's."""
    return host if is_ip(host) else "0.0.0.0"
