"""Whether a caller may make a call: its certificate, what the cluster's records say of it, and the table of rules.

Before there is state to look at, coordinators are known by their certificates alone (they sign with the cluster's own
key); everybody else is sent to a coordinator that is further on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loguru import logger

from cloudless.adapters.pki.certificate import read_peer
from cloudless.coordinator.facts import find_facts
from cloudless.core.identity.access import NO_FACTS, Caller, Forbidden, authorise, judge_identity, needs_facts
from cloudless.core.identity.names import IdentityKind
from cloudless.core.state import View
from cloudless.errors import BadCredentials, Denied, Unauthenticated, Unavailable


class Admission:
    """The guard of one coordinator's services. `view` is None until there is state."""

    def __init__(self, cluster_id: str, view: Callable[[], View | None]) -> None:
        self._cluster_id, self._view = cluster_id, view

    def __call__(self, certificate_pem: bytes, method: str, request: Any) -> None:
        """Raise Unauthenticated or Denied, with the reason, unless the caller may do this; Unavailable to ask later."""
        caller = self._identify(certificate_pem)
        facts = find_facts(request) if request is not None and needs_facts(caller, method) else NO_FACTS
        verdict = authorise(caller, method, facts)
        if isinstance(verdict, Forbidden):
            logger.warning("denied: {}", verdict.reason)
            raise (Denied if verdict.known else Unauthenticated)(verdict.reason, hint=verdict.hint)

    def _identify(self, certificate_pem: bytes) -> Caller | None:
        if not certificate_pem:
            return None
        try:
            peer = read_peer(certificate_pem)
        except BadCredentials as error:
            raise Unauthenticated(error.message) from error
        view = self._view()
        known = view.identities.get((peer.identity.kind.value, peer.identity.name)) if view else None
        if view is None and peer.identity.kind is not IdentityKind.COORDINATOR:
            raise Unavailable("this coordinator holds no state yet", hint="ask another one, or try again in a moment")
        found = judge_identity(peer.identity, self._cluster_id, known.record if known else None, peer.key_hash)
        if isinstance(found, Forbidden):
            logger.warning("denied: {}", found.reason)
            raise Unauthenticated(found.reason, hint=found.hint)
        return found
