"""Every key of the cluster, built and taken apart in one place.

All keys live under one prefix that carries the storage format's major version. Names inside keys are
checked (`NAME_PATTERN`) before they get here, so `/` never occurs inside a part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

PREFIX = "/cloudless/v1/"

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
"""Names of nodes, coordinators, namespaces and workloads: a DNS label that may also hold dots, at most 63 long."""

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Kind(Enum):
    """What a key holds; the value is the record's name in logs, quarantine reports and watch filters."""

    CLUSTER = "cluster"
    COORDINATOR = "coordinator"
    ELECTION = "election"
    SUSPICION = "suspicion"
    NODE_SPEC = "node-spec"
    NODE_INFO = "node-info"
    NODE_STATUS = "node-status"
    WORKLOAD = "workload"
    TASK_DESIRED = "task-desired"
    TASK_OBSERVED = "task-observed"
    EVENT = "event"
    AUTOPILOT = "autopilot"
    AUTOPILOT_STATUS = "autopilot-status"
    SCHEDULER = "scheduler"
    JOIN = "join"
    REPLACEMENT = "replacement"
    REQUEST = "request"
    BACKUP_SETTINGS = "backup-settings"
    BACKUP_STATUS = "backup-status"
    AUTHORITY = "authority"
    IDENTITY = "identity"
    TOKEN = "token"
    KEY_ROTATION = "key-rotation"
    REVISION = "revision"
    ROLLOUT = "rollout"


CONFIDENTIAL = frozenset({Kind.AUTHORITY, Kind.TOKEN})
"""Kinds that no watch delivers: they hold sealed keys and hashes of secrets, and have calls of their own."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart: its kind and its variable parts, in order."""

    kind: Kind
    parts: tuple[str, ...]


CLUSTER = PREFIX + "cluster"
AUTOPILOT = PREFIX + "autopilot/spec"
AUTOPILOT_STATUS = PREFIX + "autopilot/status"
SCHEDULER = PREFIX + "scheduler/spec"
JOINS = PREFIX + "joins/"
REPLACEMENTS = PREFIX + "replacements/"
COORDINATORS = PREFIX + "coordinators/"
ELECTION = PREFIX + "election/"
SUSPICIONS = PREFIX + "suspicions/"
NODES = PREFIX + "nodes/"
WORKLOADS = PREFIX + "workloads/"
REVISIONS = PREFIX + "revisions/"
ROLLOUTS = PREFIX + "rollouts/"
TASKS = PREFIX + "tasks/"
EVENTS = PREFIX + "events/"
AUTHORITIES = PREFIX + "pki/authorities/"
IDENTITIES = PREFIX + "pki/identities/"
KEY_ROTATION = PREFIX + "pki/cluster-key"
TOKENS = PREFIX + "tokens/"
REQUESTS = "/cloudless-requests/v1/"
"""Outside the prefix that is watched: only the store has to remember requests, not every coordinator's memory."""


def coordinator(coordinator_id: str) -> str:
    return COORDINATORS + coordinator_id


def election(lease_id: int) -> str:
    """A candidate's place in the queue; one per lease, because a lost lease is never campaigned with again."""
    return f"{ELECTION}{lease_id:016x}"


def suspicion(term: int, coordinator_id: str) -> str:
    return f"{SUSPICIONS}{term}/{coordinator_id}"


def node_spec(node_id: str) -> str:
    return f"{NODES}{node_id}/spec"


def node_info(node_id: str) -> str:
    return f"{NODES}{node_id}/info"


def node_status(node_id: str) -> str:
    return f"{NODES}{node_id}/status"


def workload(namespace: str, name: str) -> str:
    return f"{WORKLOADS}{namespace}/{name}/spec"


def revision(namespace: str, name: str, generation: int) -> str:
    """By the workload and the generation of the template."""
    return f"{REVISIONS}{namespace}/{name}/{generation}"


def rollout(namespace: str, name: str) -> str:
    """By the workload."""
    return f"{ROLLOUTS}{namespace}/{name}"


def task_desired(task_id: str) -> str:
    return f"{TASKS}{task_id}/desired"


def task_observed(task_id: str) -> str:
    return f"{TASKS}{task_id}/observed"


def event(event_id: str) -> str:
    return EVENTS + event_id


def authority(authority_id: str) -> str:
    return AUTHORITIES + authority_id


def identity(kind: str, name: str) -> str:
    """`kind` is `coordinator`, `agent` or `person`: one name may be all three."""
    return f"{IDENTITIES}{kind}/{name}"


def token(token_id: str) -> str:
    return TOKENS + token_id


def join(coordinator_id: str) -> str:
    return JOINS + coordinator_id


def replacement(coordinator_id: str) -> str:
    """By the coordinator that is given up."""
    return REPLACEMENTS + coordinator_id


def request(request_id: str) -> str:
    return REQUESTS + request_id


def backup_settings() -> str:
    return PREFIX + "backups/settings"


def backup_status() -> str:
    return PREFIX + "backups/status"


_SUFFIXED: dict[tuple[str, str], Kind] = {
    ("nodes", "spec"): Kind.NODE_SPEC,
    ("nodes", "info"): Kind.NODE_INFO,
    ("nodes", "status"): Kind.NODE_STATUS,
    ("tasks", "desired"): Kind.TASK_DESIRED,
    ("tasks", "observed"): Kind.TASK_OBSERVED,
}
_SINGLE: dict[str, Kind] = {
    "coordinators": Kind.COORDINATOR,
    "election": Kind.ELECTION,
    "events": Kind.EVENT,
    "tokens": Kind.TOKEN,
    "joins": Kind.JOIN,
    "replacements": Kind.REPLACEMENT,
}


def parse(key: str) -> Key | None:
    """Take a key apart; None for a key this version does not know (a newer version's, or one put by hand)."""
    if key.startswith(REQUESTS):
        name = key[len(REQUESTS) :]
        return None if "/" in name else Key(Kind.REQUEST, (name,))
    if not key.startswith(PREFIX):
        return None
    match key[len(PREFIX) :].split("/"):  # the many first: tasks and events
        case [head, name, tail] if (head, tail) in _SUFFIXED:
            return Key(_SUFFIXED[head, tail], (name,))
        case [head, name] if head in _SINGLE:
            return Key(_SINGLE[head], (name,))
        case ["cluster"]:
            return Key(Kind.CLUSTER, ())
        case ["backups", "settings"]:
            return Key(Kind.BACKUP_SETTINGS, ())
        case ["backups", "status"]:
            return Key(Kind.BACKUP_STATUS, ())
        case ["autopilot", "spec"]:
            return Key(Kind.AUTOPILOT, ())
        case ["autopilot", "status"]:
            return Key(Kind.AUTOPILOT_STATUS, ())
        case ["scheduler", "spec"]:
            return Key(Kind.SCHEDULER, ())
        case ["suspicions", term, coordinator_id]:
            return Key(Kind.SUSPICION, (term, coordinator_id))
        case ["workloads", namespace, name, "spec"]:
            return Key(Kind.WORKLOAD, (namespace, name))
        case ["revisions", namespace, name, generation]:
            return Key(Kind.REVISION, (namespace, name, generation))
        case ["rollouts", namespace, name]:
            return Key(Kind.ROLLOUT, (namespace, name))
        case ["pki", "authorities", authority_id]:
            return Key(Kind.AUTHORITY, (authority_id,))
        case ["pki", "cluster-key"]:
            return Key(Kind.KEY_ROTATION, ())
        case ["pki", "identities", kind, name]:
            return Key(Kind.IDENTITY, (kind, name))
        case _:
            return None
