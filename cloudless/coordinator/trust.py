"""What a coordinator has to do with who takes part: it signs, lets in, keeps its own certificates good, tells refusals.

The leader cares for authorities and tokens as well (`trust_keeper`). Without TLS there is nobody to tell from anybody;
then all that is left of it is refusals, of which there are none.
"""

from __future__ import annotations

import asyncio

from loguru import logger

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.supervisor import MemberSupervisor
from cloudless.adapters.pki.vault import Vault
from cloudless.coordinator.api.access import Access
from cloudless.coordinator.api.cluster_key import ClusterKeys
from cloudless.coordinator.api.enrolment import Enrolment
from cloudless.coordinator.api.identity import IdentityAdmin
from cloudless.coordinator.audit import Auditor
from cloudless.coordinator.commit import Committer
from cloudless.coordinator.credentials import OwnCredentials
from cloudless.coordinator.issuing import Issuer
from cloudless.coordinator.key_keeper import KeyKeeper, fetch_over_grpc
from cloudless.coordinator.leases import RollingLease
from cloudless.coordinator.membership import Members
from cloudless.coordinator.replica import Replica
from cloudless.coordinator.trust_keeper import TrustKeeper
from cloudless.errors import MemberFailed
from cloudless.ports import Clock, Ids
from cloudless.settings import CoordinatorSettings

LOOK_PERIOD_S = 2.0
MEMBER_RESTART_APART_S = 15.0
MEMBER_RESTART_GRACE_S = 3.0


class Trust:
    """Issuer, auditor and own credentials of one coordinator. `run` it."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        own: OwnCredentials,
        replica: Replica,
        committer: Committer,
        events: RollingLease,
        clock: Clock,
        ids: Ids,
        members: Members,
    ) -> None:
        self._members = members
        self._own_id, self._own, self._replica, self._committer = settings.node_id, own, replica, committer
        self._events, self._clock, self._ids = events, clock, ids
        self.issuer = Issuer(Vault(settings.identity_dir), replica.machine, clock)
        self.auditor = Auditor(settings.node_id, committer, events, clock, ids)
        self.keys = KeyKeeper(settings.node_id, replica.machine, self.issuer, fetch_over_grpc(own.dialler), clock)
        self._must_restart = asyncio.Event()
        replica.listen(self.issuer.on_applied)
        replica.listen(self.keys.on_applied)
        replica.listen(own.on_applied)

    def services(self, access: Access) -> tuple[object, ...]:
        return (
            Enrolment(access, self.issuer, self.auditor),
            IdentityAdmin(access, self.issuer),
            ClusterKeys(access, self.issuer, self._members),
        )

    def controllers(self) -> tuple[TrustKeeper, ...]:
        """Return who cares for authorities and tokens while this coordinator leads, where there is TLS to need them."""
        if not self._own.api:
            return ()
        keeper = TrustKeeper(
            self._own_id, self._replica, self.issuer, self._events, self._clock, self._ids, self._members.voters
        )
        return (keeper,)

    async def run(self, store: EtcdStore, supervisor: MemberSupervisor) -> None:
        """Run all parts until cancelled. New certificates are used where a connection would keep the old."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.issuer.run(), name="issuer")
            group.create_task(self.auditor.run(), name="auditor")
            if not self._own.api:
                return
            holdings, restart = self.issuer.get_holdings, self._must_restart.set
            group.create_task(
                self._own.run(holdings, self._replica.machine, self._committer, restart), name="own-credentials"
            )
            group.create_task(self._restart_member(supervisor), name="member-restart")
            group.create_task(self.keys.run(), name="cluster-keys")
            while True:
                await self._clock.sleep(LOOK_PERIOD_S)
                try:
                    store.renew()
                except OSError as error:  # the connection of before goes on
                    logger.warning("what etcd is shown cannot be read: {}", error)

    async def _restart_member(self, supervisor: MemberSupervisor) -> None:
        """Restart etcd when it has to trust another authority: it reads whom to trust at its start only."""
        while True:
            await self._must_restart.wait()
            self._must_restart.clear()
            await self._clock.sleep(MEMBER_RESTART_APART_S * self._rank())  # one after the other: a quorum must stay
            logger.info("etcd is restarted: it has to trust another certificate authority")
            try:
                await supervisor.restart(grace_s=MEMBER_RESTART_GRACE_S)
            except MemberFailed as error:  # down for good: its supervision says why, and ends what must end
                logger.warning("etcd could not be restarted for another certificate authority: {}", error)

    def _rank(self) -> int:
        """Return this coordinator's place among all, in the order of ids."""
        return sorted({*self._replica.machine.coordinators, self._own_id}).index(self._own_id)
