"""Administer one etcd member through etcd3gw: its membership, its status, its maintenance.

Not the hot path: each call is one unary JSON request to the gateway of the member at `endpoint`, in a worker
thread, with a connect and a read time-out, one request of a client at a time. Answers become small frozen
values (ids are ints; JSON sends them as strings and omits zeros); etcd's refusals become typed errors, by the
messages of its public API (api/v3rpc/rpctypes), the only thing its gateway tells them apart by.

A change whose answer was lost raises CommitUncertain; one that was never sent raises Unavailable.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from etcd3gw import Etcd3Client
from etcd3gw.exceptions import ConnectionFailedError, ConnectionTimeoutError, Etcd3Exception

from cloudless.errors import (
    AlreadyExists,
    CloudlessError,
    CommitUncertain,
    Conflict,
    Denied,
    NoQuorum,
    NoSpace,
    NotFound,
    StoreTimeout,
    TooLarge,
    Unavailable,
)
from etcd.flags import TlsFiles

_CONNECT_TIMEOUT_S = 1.0
_READ_TIMEOUT_S = 5.0
_METRICS_TIMEOUT_S = 2.0
# Defragmenting and hashing walk the whole database.
_LONG_READ_TIMEOUT_S = 120.0


class MemberNotFound(NotFound):
    code = "member-not-found"


class MemberNotLearner(Conflict):
    """The member to promote is a voter already."""

    code = "member-not-learner"


class PeerUrlTaken(AlreadyExists):
    """Another member, or this one from an earlier try, has the peer URL."""

    code = "peer-url-taken"


class LearnerNotReady(Unavailable):
    """The learner has not caught up with the leader; promoting it later can work."""

    code = "learner-not-ready"


class TooManyLearners(Unavailable):
    """etcd takes one learner at a time by default; promote or remove it first."""

    code = "too-many-learners"


class ReconfigurationUnsafe(Unavailable):
    """The change would endanger the quorum now: too few members are started, or connected for long enough."""

    code = "reconfiguration-unsafe"


class ConnectedTooShortly(ReconfigurationUnsafe):
    """A member has not been connected for `CONNECTED_LEAST_S`; asking again a little later can work."""

    code = "connected-too-shortly"


class NotRaftLeader(Unavailable):
    """Only the raft leader's own member can do this."""

    code = "not-raft-leader"


CONNECTED_LEAST_S = 5.0
"""How long etcd's members must have been connected before it lets their number change (its HealthInterval)."""

# As its own text form has an alarm: "memberID:10501334649042878790 alarm:NOSPACE ".
_ALARM = re.compile(r"memberID:(\d+) +alarm:(\w+)")

# etcd's message (without "etcdserver: ")            error                    what to do
_REFUSALS: tuple[tuple[str, type[CloudlessError], str], ...] = (
    ("can only promote a learner member which is in sync", LearnerNotReady, "wait until it has caught up"),
    ("can only promote a learner member", MemberNotLearner, ""),
    ("member not found", MemberNotFound, ""),
    ("member ID already exist", AlreadyExists, ""),
    ("Peer URLs already exists", PeerUrlTaken, "look for it in the member list"),
    ("too many learner members", TooManyLearners, "promote or remove the other learner first"),
    ("re-configuration failed due to not enough started", ReconfigurationUnsafe, "start the stopped members first"),
    ("unhealthy cluster", ConnectedTooShortly, f"all members must have been connected for {CONNECTED_LEAST_S:g} s"),
    ("not leader", NotRaftLeader, "ask the raft leader's member"),
    ("no leader", NoQuorum, "wait for an election; a majority of the members must run"),
    ("leader changed", Unavailable, ""),
    ("too many requests", Unavailable, ""),
    ("server stopped", Unavailable, ""),
    ("bad leader transferee", Conflict, "the transferee must be a healthy voter"),
    ("database space exceeded", NoSpace, "compact, defragment, then disarm the alarm"),
    ("request is too large", TooLarge, ""),
    ("rpc not supported for learner", Unavailable, "ask a voter, or promote this learner"),
    ("permission denied", Denied, ""),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the member list. `name` and `client_urls` are empty until the member has started once."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member says of itself. `leader_id` is 0 when it knows none; `errors` are etcd's words (alarms)."""

    member_id: int
    cluster_id: int
    version: str
    db_size_bytes: int
    db_in_use_bytes: int
    leader_id: int
    raft_term: int
    raft_index: int
    raft_applied_index: int
    revision: int
    is_learner: bool
    errors: tuple[str, ...]

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms among the errors. Unlike `EtcdAdmin.alarms` this costs the log nothing."""
        return tuple(Alarm(int(found[1]), found[2]) for text in self.errors for found in _ALARM.finditer(text))


@dataclass(frozen=True, slots=True)
class HashKv:
    """The hash of all keys up to `hash_revision`; equal on two members only if `compact_revision` is too."""

    hash: int
    compact_revision: int
    hash_revision: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm raised by a member: NOSPACE or CORRUPT."""

    member_id: int
    kind: str


class EtcdAdmin:
    """A client of one member. `endpoint` is the URL of its HTTP gateway; `tls` holds this client's own files."""

    def __init__(self, endpoint: str, tls: TlsFiles | None = None, *, read_timeout_s: float = _READ_TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self._read_timeout_s = read_timeout_s
        self._session = _build_session(tls)
        # A requests session is not safe for several threads, and a cancelled call's thread may still be using it.
        self._session_lock = threading.Lock()

    async def members(self, *, linearizable: bool = True) -> tuple[Member, ...]:
        """Return the members by id.

        Linearizable needs a quorum; otherwise this member's own list, which may be old. A learner gives neither:
        ask a voter. Before 3.5 the answer is always the member's own list.
        """
        answer = await self._call("cluster/member/list", {"linearizable": linearizable})
        return _members(answer)

    async def add_learner(self, peer_urls: Iterable[str]) -> Member:
        """Add a member that does not vote yet. Raises PeerUrlTaken, TooManyLearners, ReconfigurationUnsafe."""
        body = {"peerURLs": list(peer_urls), "isLearner": True}
        return _member((await self._call("cluster/member/add", body, changes=True))["member"])

    async def promote(self, member_id: int) -> None:
        """Make a learner a voter. Raises LearnerNotReady, MemberNotLearner, MemberNotFound."""
        await self._call("cluster/member/promote", {"ID": str(member_id)}, changes=True)

    async def remove(self, member_id: int) -> None:
        """Remove a member. Raises MemberNotFound, ReconfigurationUnsafe (the rest would have no quorum, or
        ConnectedTooShortly)."""
        await self._call("cluster/member/remove", {"ID": str(member_id)}, changes=True)

    async def update_peer_urls(self, member_id: int, peer_urls: Iterable[str]) -> None:
        """Tell the cluster a member's new peer URLs, before that member is restarted with them."""
        body = {"ID": str(member_id), "peerURLs": list(peer_urls)}
        await self._call("cluster/member/update", body, changes=True)

    async def status(self) -> MemberStatus:
        """Return this member's own view; learners and members without a quorum answer too."""
        return _status(await self._call("maintenance/status", {}))

    async def move_leader(self, target_id: int) -> None:
        """Hand raft leadership to `target_id`. Raises NotRaftLeader if this member does not lead."""
        await self._call("maintenance/transfer-leadership", {"targetID": str(target_id)}, changes=True)

    async def hash_kv(self, revision: int = 0) -> HashKv:
        """Return the hash of this member's keys at `revision`, 0 for its latest. Walks the whole database.

        Not `maintenance/hash`: that is the hash of the whole file, which differs between healthy members.
        """
        body = {"revision": str(revision)}
        answer = await self._call("maintenance/hashkv", body, read_timeout_s=_LONG_READ_TIMEOUT_S)
        # hash_revision came with 3.6; before, the caller's revision or the header's is the one hashed.
        hashed = _int(answer, "hash_revision") or revision or _int(answer.get("header", {}), "revision")
        return HashKv(_int(answer, "hash"), _int(answer, "compact_revision"), hashed)

    async def alarms(self) -> tuple[Alarm, ...]:
        answer = await self._call("maintenance/alarm", {"action": "GET"})
        return _alarms(answer)

    async def disarm(self, alarm: Alarm) -> None:
        """Clear an alarm whose cause is cured; etcd does not clear NOSPACE by itself."""
        body = {"action": "DEACTIVATE", "memberID": str(alarm.member_id), "alarm": alarm.kind}
        await self._call("maintenance/alarm", body, changes=True)

    async def defragment(self) -> None:
        """Give free pages back to the file system. The member answers nothing else meanwhile: leader last."""
        await self._call("maintenance/defragment", {}, read_timeout_s=_LONG_READ_TIMEOUT_S)

    async def metrics(self, bytes_max: int) -> str:
        """Return this member's own metrics in Prometheus' text format. Raises Unavailable."""
        try:
            return await asyncio.to_thread(self._get_metrics, bytes_max)
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(f"no metrics from etcd at {self.endpoint}: {error!r}") from error

    def close(self) -> None:
        self._session.close()

    async def _call(
        self, path: str, body: dict[str, Any], *, changes: bool = False, read_timeout_s: float | None = None
    ) -> dict[str, Any]:
        timeout_s = (_CONNECT_TIMEOUT_S, read_timeout_s or self._read_timeout_s)
        try:
            return await asyncio.to_thread(self._post, path, body, timeout_s)
        except Etcd3Exception as error:
            raise _translated(error, path, self.endpoint, changes) from error
        except (requests.RequestException, ValueError) as error:  # an answer cut off in the middle, or none at all
            kind = CommitUncertain if changes else Unavailable
            raise kind(f"{path}: no readable answer from {self.endpoint}: {error!r}") from error

    def _post(self, path: str, body: dict[str, Any], timeout_s: tuple[float, float]) -> dict[str, Any]:
        client = _build_client(self.endpoint, self._session, timeout_s)
        with self._session_lock:
            return cast(dict[str, Any], client.post(client.get_url(path), json=body))

    def _get_metrics(self, bytes_max: int) -> str:
        timeout_s = (_CONNECT_TIMEOUT_S, _METRICS_TIMEOUT_S)
        with (
            self._session_lock,
            self._session.get(f"{self.endpoint}/metrics", timeout=timeout_s, stream=True) as answer,
        ):
            answer.raise_for_status()
            text: bytes = answer.raw.read(bytes_max + 1, decode_content=True)
        if len(text) > bytes_max:
            raise ValueError(f"more than {bytes_max} bytes")
        return text.decode()


def _build_session(tls: TlsFiles | None) -> requests.Session:
    session = requests.Session()
    # Proxies and .netrc of the environment are for the internet, not for our own member.
    session.trust_env = False
    if tls:
        session.verify = tls.ca_file
        session.cert = (tls.cert_file, tls.key_file)
    return session


def _build_client(endpoint: str, session: requests.Session, timeout_s: tuple[float, float]) -> Etcd3Client:
    parts = urlsplit(endpoint)
    return Etcd3Client(
        host=parts.hostname or "",
        port=parts.port or 2379,
        protocol=parts.scheme,
        # requests takes a pair (connect, read); the client hands it through as it is.
        timeout=cast(float, timeout_s),
        # Given, because the client's discovery cannot read a pre-release's version.
        api_path="/v3/",
        session=session,
    )


def _members(answer: dict[str, Any]) -> tuple[Member, ...]:
    return tuple(sorted((_member(entry) for entry in answer.get("members", [])), key=lambda member: member.id))


def _member(entry: dict[str, Any]) -> Member:
    return Member(
        id=_int(entry, "ID"),
        name=entry.get("name", ""),
        peer_urls=tuple(entry.get("peerURLs", ())),
        client_urls=tuple(entry.get("clientURLs", ())),
        is_learner=bool(entry.get("isLearner", False)),
    )


def _status(answer: dict[str, Any]) -> MemberStatus:
    header = answer.get("header", {})
    return MemberStatus(
        member_id=_int(header, "member_id"),
        cluster_id=_int(header, "cluster_id"),
        version=answer.get("version", ""),
        db_size_bytes=_int(answer, "dbSize"),
        db_in_use_bytes=_int(answer, "dbSizeInUse"),
        leader_id=_int(answer, "leader"),
        raft_term=_int(answer, "raftTerm"),
        raft_index=_int(answer, "raftIndex"),
        raft_applied_index=_int(answer, "raftAppliedIndex"),
        revision=_int(header, "revision"),
        is_learner=bool(answer.get("isLearner", False)),
        errors=tuple(answer.get("errors", ())),
    )


def _alarms(answer: dict[str, Any]) -> tuple[Alarm, ...]:
    return tuple(Alarm(_int(entry, "memberID"), entry.get("alarm", "NONE")) for entry in answer.get("alarms", []))


def _int(entry: dict[str, Any], field: str) -> int:
    return int(entry.get(field, 0))


def _translated(error: Etcd3Exception, path: str, endpoint: str, changes: bool) -> CloudlessError:
    """Return the typed error for what etcd3gw raised.

    A refusal by name was decided before anything was changed; any other failure of a change leaves it open.
    """
    said = _server_message(error)
    for message, refusal, hint in _REFUSALS:
        if message in said:
            return refusal(f"{path}: {said}", hint=hint)
    if _never_sent(error):
        return Unavailable(f"the member at {endpoint} cannot be reached", hint="is etcd running?")
    if changes:
        return CommitUncertain(f"{path}: no clear answer from {endpoint}: {said or 'time-out'}")
    if isinstance(error, ConnectionTimeoutError) or "timed out" in said:
        return StoreTimeout(f"{path}: {said or 'no answer in time'} ({endpoint})")
    return Unavailable(f"{path}: {said} ({endpoint})")


def _server_message(error: Etcd3Exception) -> str:
    """Return the gateway's message; its JSON has it as `message`, or in 3.4 as `error`."""
    text = error.detail_text or ""
    try:
        document = json.loads(text)
        return str(document.get("message") or document.get("error") or text)
    except (ValueError, AttributeError):
        return text.strip()


def _never_sent(error: Etcd3Exception) -> bool:
    """Return whether the connection was never made, so that nothing can have happened."""
    if not isinstance(error, ConnectionFailedError | ConnectionTimeoutError):
        return False
    cause = error.__context__
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(cause.args[0], "reason", None) if cause and cause.args else None
    return type(reason).__name__ == "NewConnectionError"
