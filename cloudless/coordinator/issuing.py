"""What a coordinator signs with: the authorities of the replicated state, opened with its cluster key.

Until the state is there, the vault's copy of it serves; once it is, the copy follows it. A coordinator without the
cluster key serves everything but signing, and says so: another one signs. While the key is replaced it holds several
(see `cloudless.core.identity.key_rotation`), and what is in the state says which one is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from loguru import logger

from cloudless.adapters.pki.authority import Authority
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.adapters.pki.vault import Holdings, Vault, found, roots_pem
from cloudless.core.identity.names import Identity
from cloudless.core.keys import Kind
from cloudless.core.model import AuthorityPurpose, AuthorityRecord
from cloudless.core.state import Applied, StateMachine
from cloudless.errors import BadCredentials, Unavailable
from cloudless.ports import Clock
from cloudless.rpc import codec
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

KEEP_RETRY_PAUSE_S = 5.0


Offload = Callable[..., Awaitable[Any]]
"""Runs a function that waits for a disk: in a thread, except where time is virtual."""


class Issuer:
    """Signs for one coordinator. `run` keeps the vault's copy true."""

    def __init__(self, vault: Vault, machine: StateMachine, clock: Clock, offload: Offload = asyncio.to_thread) -> None:
        self._vault, self._machine, self._clock, self._offload = vault, machine, clock, offload
        self._kept = vault.load()
        self._opened: dict[str, Authority] = {}
        self._changed, self._keeping = asyncio.Event(), asyncio.Lock()

    @property
    def cluster_id(self) -> str:
        """The cluster's id as certificates say it; "" before there are any."""
        if self._kept is not None:
            return self._kept.cluster_id
        return self._machine.cluster.id if self._machine.cluster is not None else ""

    def records(self) -> tuple[AuthorityRecord, ...]:
        """Return all authorities, replicated ones if there are any."""
        held = tuple(held.record for _, held in sorted(self._machine.authorities.items()))
        return held or (self._kept.records if self._kept is not None else ())

    def roots_pem(self, purpose: AuthorityPurpose) -> str:
        """Return the certificates to trust for `purpose`, the one that signs first."""
        return roots_pem(self.records(), purpose)

    def get_cluster_key(self) -> ClusterKey:
        """Return the key in use, the only one to seal anything with. Raises Unavailable where it is not held."""
        holdings = self.get_holdings()
        if any(record.sealed_with != holdings.cluster_key.name for record in holdings.records):
            raise Unavailable(
                "this coordinator cannot sign: it does not hold the new cluster key yet",
                hint="it asks the others for it; ask another one meanwhile",
            )
        return holdings.cluster_key

    def get_holdings(self) -> Holdings:
        """Return everything a joining coordinator needs. Raises Unavailable."""
        if self._kept is None:
            raise Unavailable(
                "this coordinator cannot sign: it has no cluster key", hint="another coordinator has it: ask that one"
            )
        return _arrange(self.cluster_id, self._kept.keys, self.records())

    def find_key(self, name: str) -> ClusterKey | None:
        """Return the key of this name, in use or not."""
        return self._kept.find_key(name) if self._kept is not None else None

    def key_names(self) -> tuple[str, ...]:
        """Return the names of all keys held."""
        return tuple(key.name for key in self._kept.keys) if self._kept is not None else ()

    def unseal(self, sealed: bytes, label: str) -> bytes:
        """Return what was sealed with any of the keys held. Raises Unavailable."""
        for key in self.get_holdings().keys:
            try:
                return key.unseal(sealed, label)
            except BadCredentials:
                continue
        raise Unavailable("this coordinator does not hold the key that was used", hint="ask another coordinator")

    def get_authority(self, purpose: AuthorityPurpose = AuthorityPurpose.CLUSTER) -> Authority:
        """Return the authority that signs, opened. Raises Unavailable."""
        holdings = self.get_holdings()
        record = holdings.get_issuing(purpose)
        known = self._opened.get(record.id)
        if known is not None and known.record == record:
            return known
        try:
            self._opened[record.id] = opened = holdings.open(record)
        except BadCredentials as error:
            raise Unavailable(f"this coordinator cannot sign: {error.message}", hint=error.hint) from error
        return opened

    def issue(self, identity: Identity, key: ec.EllipticCurvePublicKey, stale_s: float) -> pb.Issued:
        """Sign a certificate and return it with what belongs to it. Raises Unavailable.

        `stale_s`: how old the state is by which it is signed; the certificate lives that much less long.
        """
        authority = self.get_authority()
        certificate = authority.sign_identity(identity, key, self._clock.wall_ms(), stale_s)
        return pb.Issued(
            chain_pem=authority.chain_pem(certificate),
            roots_pem=self.roots_pem(AuthorityPurpose.CLUSTER),
            cluster_id=identity.cluster_id,
            identity=identity.uri,
        )

    def build_handover(self) -> pb.Handover:
        """Return what a joining coordinator is given besides its certificate. Raises Unavailable."""
        return pb.Handover(
            cluster_key=self.get_cluster_key().raw,
            authorities=[codec.to_message(record, objects_pb2.AuthorityRecord) for record in self.records()],
        )

    async def found(self, cluster_id: str) -> Holdings:
        """Return the holdings a new cluster begins with: those kept here, or fresh ones, kept from now on.

        They are on disk before anybody else can see them: a CA whose key was lost with a crash would lock all out.
        """
        if self._kept is None:
            holdings = found(cluster_id, self._clock.wall_ms())
            await self._offload(self._vault.keep, holdings)
            self._kept = holdings
        return self._kept

    # --- keys that come and go ---

    async def add_key(self, key: ClusterKey) -> None:
        """Hold another key, on disk before this returns. Raises Unavailable, BadCredentials, OSError."""
        async with self._keeping:
            kept = self._get_kept()
            if kept.find_key(key.name) is None:
                await self._keep(replace(kept, other_keys=(*kept.other_keys, key)))
                self._changed.set()

    async def drop_keys(self, names: Collection[str]) -> None:
        """Forget keys that nothing is sealed with, here or in the state. Raises what `add_key` raises."""
        async with self._keeping:
            kept = self._get_kept()
            needed = {kept.cluster_key.name, *(record.sealed_with for record in (*kept.records, *self.records()))}
            doomed = set(names) - needed
            await self._keep(replace(kept, other_keys=tuple(k for k in kept.other_keys if k.name not in doomed)))

    def _get_kept(self) -> Holdings:
        if self._kept is None:
            raise Unavailable("this coordinator keeps no keys", hint="without TLS there are none")
        return self._kept

    async def _keep(self, holdings: Holdings) -> None:
        if holdings != self._kept:
            await self._offload(self._vault.keep, holdings)
            self._kept = holdings

    # --- keeping the copy true ---

    def on_applied(self, applied: Applied) -> None:
        """Take notice of a change of state."""
        if any(transition.kind is Kind.AUTHORITY for transition in applied.transitions):
            self._changed.set()

    async def run(self) -> None:
        """Write replicated authorities to disk whenever they change, until cancelled."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            records = tuple(held.record for _, held in sorted(self._machine.authorities.items()))
            if self._kept is None or not records or records == self._kept.records:
                continue
            if lacking := {record.sealed_with for record in records} - set(self.key_names()):
                logger.warning("the authorities are sealed with a cluster key not held here: {}", *sorted(lacking))
                continue  # until it is added
            try:
                async with self._keeping:
                    await self._keep(_arrange(self._kept.cluster_id, self._kept.keys, records))
            except (OSError, BadCredentials) as error:
                logger.warning("the authorities could not be written to disk: {}", error)
                await self._clock.sleep(KEEP_RETRY_PAUSE_S)
                self._changed.set()


def _arrange(cluster_id: str, held: Sequence[ClusterKey], records: tuple[AuthorityRecord, ...]) -> Holdings:
    """Return holdings whose first key is the one that the newest authority is sealed with, if it is held."""
    newest = max(records, key=lambda record: record.generation, default=None)
    in_use = next((key for key in held if newest is not None and key.name == newest.sealed_with), held[0])
    return Holdings(cluster_id, in_use, records, tuple(key for key in held if key is not in_use))
