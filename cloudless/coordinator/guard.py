"""The door of every call: who comes, may they, and if not, who is told.

The transport has verified the certificate against the trusted CAs; here it becomes a caller, whom the records must
know, and the table of rules is asked. A stream is asked about when it opens and again with each message, either way:
who was revoked meanwhile, or speaks for somebody else, is refused in the middle of it. Works before there is state:
then coordinators are known by their certificates alone, for what they need of each other on the way to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudless.adapters.pki.certificate import Peer, read_peer
from cloudless.adapters.system import SystemClock
from cloudless.coordinator.api.caller import Presence, find_presence, set_presence
from cloudless.coordinator.api.request_facts import find_facts
from cloudless.core.identity.access import (
    NO_FACTS,
    Allowed,
    Caller,
    Forbidden,
    admit,
    authorise,
    judge_early,
    judge_identity,
    may_be_new,
    needs_facts,
)
from cloudless.core.identity.rules import RULES
from cloudless.core.state import View
from cloudless.errors import BadCredentials, Denied, Unauthenticated, Unavailable
from cloudless.ports import Clock

Told = Callable[[str, str, str, str], None]
"""Told of each refusal: subject, actor, method, reason."""
CERTIFICATE_KEY = "x509_pem_cert"


class Guard:
    """Decides for one server. `find_view` returns None until the state is loaded.

    Without TLS nobody can be told from anybody: `open_door` then lets everyone do everything. It is for loopback.
    """

    def __init__(
        self,
        find_view: Callable[[], View | None],
        find_cluster_id: Callable[[], str],
        *,
        tell: Told = lambda subject, actor, method, reason: None,
        open_door: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._find_view, self._find_cluster_id, self._tell, self._open_door = (
            find_view, find_cluster_id, tell, open_door,
        )  # fmt: skip
        self._clock = clock or SystemClock()

    def enter(self, method: str, context: Any) -> None:
        """Let a call in, or raise Unauthenticated or Denied. Call it in the task that serves the call, first of all."""
        set_presence(None)
        if self._open_door:
            return
        presence = self._identify(method, context)
        set_presence(presence)
        caller = presence.caller if presence is not None else None
        self._judge(admit(caller, method), method, caller, context)

    def check(self, method: str, message: Any, context: Any) -> None:
        """Judge what the request, or one message of a stream, says. Raises Unauthenticated, Denied.

        `message` None: nothing said, such as before an answer of a long stream; only who it is is judged again.
        """
        presence = find_presence()
        if self._open_door or presence is None:
            return
        record = self._find_record(presence.peer)
        facts = None
        if message is not None and needs_facts(presence.caller, method):
            facts = find_facts(method, message, self._find_view())
        if record is not None and record is presence.record and facts in (None, NO_FACTS):
            return  # as it was when it was last judged, and nothing new is said: most messages of a long stream
        caller = self._judge_peer(presence.peer, method, context)
        if message is not None and needs_facts(caller, method):
            facts = facts or find_facts(method, message, self._find_view())
            self._judge(authorise(caller, method, facts), method, caller, context)
        elif caller != presence.caller:
            self._judge(authorise(caller, method), method, caller, context)
        presence.caller, presence.record = caller, record

    def _identify(self, method: str, context: Any) -> Presence | None:
        """Return who calls. What anyone may call is not refused for a certificate that is no good."""
        pem = find_certificate(context.auth_context())
        rule = RULES.get(method)
        if pem is None:
            return None
        try:
            peer = read_peer(pem)
            return Presence(self._judge_peer(peer, method, context, tell=rule is None or not rule.anyone), peer)
        except (BadCredentials, Unauthenticated, Unavailable) as error:
            if rule is not None and rule.anyone:
                return None
            if not isinstance(error, BadCredentials):
                raise
            raise self._refuse(Forbidden(error.message, known=False), method, "", context) from error

    def _find_record(self, peer: Peer) -> object:
        """Return the identity record of a peer, None if there is none or no state to look it up in."""
        view = self._find_view()
        known = view.identities.get((peer.identity.kind.value, peer.identity.name)) if view is not None else None
        return known.record if known is not None else None

    def _judge_peer(self, peer: Peer, method: str, context: Any, *, tell: bool = True) -> Caller:
        identity, view, rule = peer.identity, self._find_view(), RULES.get(method)
        if view is None and identity.cluster_id == self._find_cluster_id():
            early = judge_early(identity, rule)
            if early is None:
                raise Unavailable(
                    "this coordinator holds no state yet and cannot tell who is enrolled",
                    hint="ask another, or again soon; `cloudless cluster doctor` says what it waits for",
                )
            return early
        known = view.identities.get((identity.kind.value, identity.name)) if view is not None else None
        found = judge_identity(
            identity,
            self._find_cluster_id(),
            known.record if known else None,
            peer.key_hash,
            newcomer=known is None and may_be_new(view, rule, self._clock.wall_ms()),
        )
        if isinstance(found, Caller):
            return found
        if not tell:
            raise Unauthenticated(found.reason, hint=found.hint)
        raise self._refuse(found, method, identity.subject, context)

    def _judge(self, verdict: Allowed | Forbidden, method: str, caller: Caller | None, context: Any) -> None:
        if isinstance(verdict, Forbidden):
            raise self._refuse(verdict, method, caller.subject if caller else "", context)

    def _refuse(self, verdict: Forbidden, method: str, actor: str, context: Any) -> Denied | Unauthenticated:
        self._tell(actor or f"address/{place_of(context)}", actor, method.rpartition(".")[2], verdict.reason)
        kind = Denied if verdict.known else Unauthenticated
        return kind(verdict.reason, hint=verdict.hint)


def find_certificate(auth_context: Mapping[str, Sequence[bytes]]) -> bytes | None:
    """Return the certificate that a gRPC peer has shown, as PEM, None if it has shown none."""
    shown = auth_context.get(CERTIFICATE_KEY) or ()
    return bytes(shown[0]) if shown else None


def place_of(context: Any) -> str:
    """Return the address a call comes from, without its port: `ipv4:10.0.0.1:4711` is `10.0.0.1`."""
    peer = str(context.peer() or "")
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        return rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
    return kind or "unknown"
