"""Who makes the call that is being served: set by the guard at a call's door, read wherever it matters.

Kept beside the call instead of in every signature: a context variable belongs to the task that serves the call, and
to those it starts.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from cloudless.adapters.pki.certificate import Peer
from cloudless.core.identity.access import Caller
from cloudless.errors import Denied


@dataclass(slots=True)
class Presence:
    """A caller and the certificate it came with. `record` is the identity record it was found good by last."""

    caller: Caller
    peer: Peer
    record: object = None


_PRESENT: ContextVar[Presence | None] = ContextVar("present", default=None)


def set_presence(presence: Presence | None) -> None:
    """Say who makes the call that this task serves; None: nobody that is known."""
    _PRESENT.set(presence)


def find_presence() -> Presence | None:
    return _PRESENT.get()


def current_actor() -> str:
    """Return what events call the caller, "" if it is nobody that is known."""
    presence = _PRESENT.get()
    return presence.caller.subject if presence is not None else ""


def require_namespace(namespace: str) -> None:
    """Raise Denied if the caller is bound to other namespaces.

    The door has asked the state of that moment. A task that this coordinator learns of only afterwards is asked about
    again, by who found it.
    """
    presence = _PRESENT.get()
    bound = presence.caller.namespaces if presence is not None else ()
    if bound and namespace not in bound:
        raise Denied(f"{current_actor()} is bound to {', '.join(bound)}; this concerns {namespace}")
