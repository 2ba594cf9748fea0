"""May this caller make this call? Decided from the table in `rules`, the caller's record and what the request says.

A caller is who its certificate says, if the records agree: the identity is enrolled, not revoked, and its key is
the one that was enrolled. A call is allowed if its rule lets the caller's role in, if everyone the request speaks
for is the caller itself (where the rule wants that), and if the namespaces it touches are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.rules import RULES, Reach, Rule
from cloudless.core.model import IdentityRecord, Role
from cloudless.core.state.view import View


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `namespaces` binds a person; empty: all."""

    name: str
    role: Role
    namespaces: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        kind = self.role.value.lower() if self.role in (Role.COORDINATOR, Role.AGENT) else "person"
        return f"{kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a request says that its permission depends on.

    `speaks_for`: the ids of nodes or coordinators it claims to be or to report for. `namespaces`: those it reads or
    writes; None: all there are.
    """

    speaks_for: tuple[str, ...] = ()
    namespaces: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Allowed:
    pass


@dataclass(frozen=True, slots=True)
class Forbidden:
    """`reason` says who may not do what; `hint` what would be right. `known` is False if the caller is nobody."""

    reason: str
    hint: str = ""
    known: bool = True


NO_FACTS = RequestFacts()
FOUNDING_MS = 3_600_000
"""How long a cluster counts as being founded: founders may be started one after the other."""
_RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


def judge_identity(
    identity: Identity, cluster_id: str, record: IdentityRecord | None, key_hash: str, *, newcomer: bool = False
) -> Caller | Forbidden:
    """Return the caller whose certificate names `identity` and holds the key `key_hash`.

    `newcomer`: a coordinator without a record may come in (see `may_be_new`). Otherwise a CA's key alone makes nobody a
    coordinator: whoever has it must also be able to write to the store.
    """
    if identity.cluster_id != cluster_id:
        return Forbidden(f"{identity} belongs to another cluster than {cluster_id}", known=False)
    if record is None:
        if newcomer and identity.kind is IdentityKind.COORDINATOR:
            return Caller(identity.name, Role.COORDINATOR)
        return Forbidden(f"{identity.subject} is not enrolled", "enrol it again with a new token", known=False)
    if record.revoked_at_ms:
        return Forbidden(f"{identity.subject} was revoked", record.revoked_reason, known=False)
    if record.key_hashes and key_hash not in record.key_hashes:
        return Forbidden(
            f"{identity.subject} has enrolled with another key since",
            "this key belongs to its former self: remove it",
            known=False,
        )
    return Caller(identity.name, record.role, record.namespaces)


def may_be_new(view: View | None, rule: Rule | None, now_ms: int) -> bool:
    """Return whether a coordinator that no record knows may make such a call.

    Founders sign for themselves before there is a store to write to. So none need be on record while none is; and one
    that comes late may become a member until `FOUNDING_MS` after the first went on record. Who joins later, with a
    token, is on record by its use. Without an end to it a founding file found years later, or what a coordinator that
    was revoked and forgotten still has, would be enough to become a member.
    """
    if rule is None:
        return False
    if view is None:
        return rule.early
    since_ms = [
        known.record.enrolled_at_ms
        for (kind, _), known in sorted(view.identities.items())
        if kind == IdentityKind.COORDINATOR.value
    ]
    return not since_ms or (rule.newcomers and now_ms - min(since_ms) < FOUNDING_MS)


def judge_early(identity: Identity, rule: Rule | None) -> Caller | None:
    """Return the caller by its certificate of this cluster alone, before there is state to look it up in.

    None: for such a call that is not enough. A coordinator that is started while there is no quorum never comes to hold
    state, and whoever looks after it must see why. What a person may do is in no certificate: it is a viewer then.
    """
    if not may_be_new(None, rule, 0):
        return None
    match identity.kind:
        case IdentityKind.COORDINATOR:
            return Caller(identity.name, Role.COORDINATOR)
        case IdentityKind.PERSON:
            return Caller(identity.name, Role.VIEWER)
        case _:
            return None


def needs_facts(caller: Caller | None, method: str) -> bool:
    """Return whether `authorise` will look at the request's facts, which cost something to find."""
    rule = RULES.get(method)
    if rule is None or caller is None:
        return False
    return (rule.own and caller.role in (Role.COORDINATOR, Role.AGENT)) or bool(caller.namespaces)


def admit(caller: Caller | None, method: str) -> Allowed | Forbidden:
    """Return whether the caller may make such a call at all, whatever the request says."""
    rule = RULES.get(method)
    if rule is None:
        return Forbidden(f"{method} is not a call anybody may make", known=caller is not None)
    if rule.anyone:
        return Allowed()
    if caller is None:
        return Forbidden(
            f"{method} needs an identity", "run `cloudless login`, or join with a token (`cloudless token create`)",
            known=False,
        )  # fmt: skip
    if caller.role in (Role.COORDINATOR, Role.AGENT):
        if caller.role in rule.machines:
            return Allowed()
        return Forbidden(f"{caller.subject}: {method} is not for {caller.role.value.lower()}s")
    return _admit_person(caller, method, rule)


def authorise(caller: Caller | None, method: str, facts: RequestFacts = NO_FACTS) -> Allowed | Forbidden:
    """Return whether the caller may make this very call. `method` is `package.Service/Method`."""
    verdict = admit(caller, method)
    if caller is None or isinstance(verdict, Forbidden) or RULES[method].anyone:
        return verdict
    rule = RULES[method]
    if caller.role in (Role.COORDINATOR, Role.AGENT):
        others = sorted({name for name in facts.speaks_for if name != caller.name}) if rule.own else []
        if others:
            return Forbidden(f"{caller.subject} may not speak for {', '.join(others[:3]) or 'nobody'}")
        return Allowed()
    return _judge_namespaces(caller, method, rule, facts)


def _admit_person(caller: Caller, method: str, rule: Rule) -> Allowed | Forbidden:
    if rule.people is None:
        return Forbidden(f"{caller.subject}: {method} is not for people")
    if _RANK[caller.role] < _RANK[rule.people]:
        return Forbidden(
            f"{caller.subject} is {caller.role.value.lower()}; {method} needs {rule.people.value.lower()}",
            "ask an admin for a token of that role",
        )
    return Allowed()


def _judge_namespaces(caller: Caller, method: str, rule: Rule, facts: RequestFacts) -> Allowed | Forbidden:
    if not caller.namespaces or rule.reach is Reach.SHARED:
        return Allowed()
    own = ", ".join(caller.namespaces)
    if rule.reach is Reach.CLUSTER:
        return Forbidden(f"{caller.subject} is bound to {own}; {method} concerns the whole cluster")
    if facts.namespaces is None:
        return Forbidden(f"{caller.subject} is bound to {own}, not to all namespaces", "name one: --namespace")
    others = sorted({name for name in facts.namespaces if name not in caller.namespaces})
    if others:
        return Forbidden(f"{caller.subject} is bound to {own}; this concerns {', '.join(others[:3])}")
    return Allowed()
