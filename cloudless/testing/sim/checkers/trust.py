"""Certificates and tokens: one use, one identity; who is locked out stays out; who is well never runs out of time."""

from __future__ import annotations

from typing import Any

from cloudless.core.identity.names import IdentityKind
from cloudless.core.keys import Kind
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, IdentityRecord
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.happenings import Disturbed, LetIn, Looked, Renewed, Soothed, Stored

CALM_S = 8.0
"""After so long without a fault everybody has had the time to renew: own looks are five seconds apart."""
SHORT_LIFETIMES = 0.6
"""A quarter, dated back by a tenth, and two whole seconds of a lifetime as short as those here."""
LASTING = frozenset({"die"})
HARMLESS = frozenset({"end-task", "slow-disk", "lose-lease", "transfer", "break-watch"})


class TokenUses(Checker):
    """A token lets no more in than it has uses, however many ask at once and whoever leads."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._let_in: dict[str, set[tuple[str, tuple[str, ...]]]] = {}

    def on_Stored(self, stored: Stored) -> None:
        for transition in stored.transitions:
            record = transition.after
            if transition.kind is not Kind.IDENTITY or not isinstance(record, IdentityRecord):
                continue
            token = self.world.truth.tokens.get(record.enrolled_by)
            if token is None or (transition.before is not None and transition.before.enrolled_by == record.enrolled_by):
                continue
            let_in = self._let_in.setdefault(record.enrolled_by, set())
            let_in.add((record.name, record.key_hashes))
            used = token.record.uses_total - token.record.uses_left
            if len(let_in) > used or len(let_in) > token.record.uses_total:
                raise self.refuse(
                    f"token {record.enrolled_by} of {token.record.uses_total} uses let {len(let_in)} in; "
                    f"{used} are counted"
                )


class LockedOut(Checker):
    """A coordinator that knows somebody revoked, or by another key, lets nothing of it in any more."""

    def on_LetIn(self, let: LetIn) -> None:
        peer, view = let.peer, let.life.replica.machine
        if peer is None or not let.life.replica.loaded.is_set():
            return
        known = view.identities.get((peer.identity.kind.value, peer.identity.name))
        if known is None:
            if peer.identity.kind is not IdentityKind.COORDINATOR:
                raise self.refuse(f"{let.life.id} lets {peer.identity.subject} in, which is not enrolled")
            return
        if known.record.revoked_at_ms:
            raise self.refuse(f"{let.life.id} lets {peer.identity.subject} in, which it knows as revoked")
        if peer.key_hash not in known.record.key_hashes:
            raise self.refuse(f"{let.life.id} lets {peer.identity.subject} in with a key of before")


class OneIssuer(Checker):
    """From the first on, one authority of each purpose signs at every moment."""

    def on_Stored(self, stored: Stored) -> None:
        if not any(transition.kind is Kind.AUTHORITY for transition in stored.transitions):
            return
        for purpose in AuthorityPurpose:
            held = [one.record for one in self.world.truth.authorities.values() if one.record.purpose is purpose]
            signing = [record.id for record in held if record.phase is AuthorityPhase.ISSUING]
            if len(signing) != 1:
                raise self.refuse(f"{signing} sign for {purpose.value}")


class TrustedToTheEnd(Checker):
    """No authority is dropped while somebody still has a certificate of it that has not run out.

    But for coordinators that wait to become voters: they sign for themselves and hear of nothing (`docs/security.md`);
    and for the short certificates of whoever signs without having heard anything for most of a lifetime.
    """

    def on_Stored(self, stored: Stored) -> None:
        for transition in stored.transitions:
            if transition.kind is Kind.AUTHORITY and transition.after is None:
                self._check(transition.before.certificate_pem.encode(), transition.before.id)

    def _check(self, pem: bytes, authority_id: str) -> None:
        for name, disk in self.world.trust.disks.items():
            held, clock = disk.held, self.world.clocks.get(name)
            if held is None or clock is None or not held.chain_pem.endswith(pem) or self.world.trust.is_waiting(name):
                continue
            lasts_ms = held.validity.not_after_ms - held.validity.not_before_ms
            if lasts_ms <= SHORT_LIFETIMES * self.world.options.certificates.lifetime_s * 1000:
                continue
            left_ms = held.validity.not_after_ms - clock.wall_ms()
            if left_ms > 0:
                raise self.refuse(f"{authority_id} is dropped; the certificate of {name} is good for {left_ms} ms more")


class NeverRunsOut(Checker):
    """Who runs undisturbed among others who do renews before its certificate runs out."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._disturbed_s = world.loop.now_s
        self._active: dict[tuple[str, str], int] = {}

    def on_Disturbed(self, disturbed: Disturbed) -> None:
        if disturbed.kind in HARMLESS:
            return
        self._disturbed_s = self.world.loop.now_s
        if disturbed.kind not in LASTING:
            key = (disturbed.kind, disturbed.who)
            self._active[key] = self._active.get(key, 0) + 1

    def on_Soothed(self, soothed: Soothed) -> None:
        key = (soothed.kind, soothed.who)
        if key in self._active:
            self._disturbed_s = self.world.loop.now_s
            self._active[key] -= 1

    def _is_calm(self) -> bool:
        quiet = self.world.loop.now_s - self._disturbed_s > CALM_S
        return quiet and not any(count > 0 for count in self._active.values())

    def on_Renewed(self, renewed: Renewed) -> None:
        late_ms = renewed.now_ms - renewed.before.validity.not_after_ms
        if late_ms > 0 and self._is_calm():
            raise self.refuse(f"{renewed.who} renewed {late_ms} ms after its certificate had run out, all was well")

    def on_Looked(self, looked: Looked) -> None:
        if not self._is_calm():
            return
        for life in self.world.living():
            held = self.world.trust.find_credentials(life.id)
            if held is not None and self.world.clocks[life.id].wall_ms() >= held.validity.not_after_ms:
                raise self.refuse(f"the certificate of {life.id} has run out while all was well")
