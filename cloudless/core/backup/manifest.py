"""What a backup says of itself: of which cluster, of which moment, what parts it has and how to know them again.

The manifest is readable without the key, so it holds nothing secret: names, addresses, numbers, hashes. It comes
first in the file and is sealed together with the content: changing it makes the content unreadable.

    part       what it is                                                      there
    ─────────  ──────────────────────────────────────────────────────────────  ─────────────────────────────
    state      etcd's own snapshot: the database, and its SHA-256 at the end   always
    identity   authorities, keys and tokens, so that nodes need not enrol anew  when there is some and a key

`state_digest` is that of the state machine at `revision`, by the coordinator's own memory of that revision: it comes
from another way than the snapshot, so a snapshot that gives the same digest is the state that was served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloudless.errors import InvalidSpec, Problem

FORMAT = 1
"""The newest format of a backup that this version reads, and the one it writes."""

STATE = "state"
IDENTITY = "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the content: its name, its bytes before compression, their SHA-256 in hexadecimal."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupMember:
    """One etcd member of the cluster at that moment; for people, a restore makes new ones."""

    name: str
    peer_urls: tuple[str, ...] = ()
    learner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """See the module. Times are Unix milliseconds; `etcd_cluster_id` is hexadecimal."""

    format: int = FORMAT
    cluster_id: str
    etcd_cluster_id: str
    revision: int
    state_digest: str
    created_at_ms: int
    created_by: str
    cloudless_version: str
    etcd_version: str
    proven: bool = False
    """Whether a member was made from it and gave this digest before the backup was handed out."""

    members: tuple[BackupMember, ...] = ()
    parts: tuple[Part, ...] = ()

    def find_part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def to_document(self) -> dict[str, Any]:
        """Return the manifest as plain values, for JSON."""
        members = [{**asdict(member), "peer_urls": list(member.peer_urls)} for member in self.members]
        return {**asdict(self), "members": members, "parts": [asdict(part) for part in self.parts]}


def parse_manifest(document: Any) -> Manifest:
    """Return the manifest that plain values stand for; fields of a newer version of this format are ignored.

    Raises InvalidSpec, naming the field.
    """
    if not isinstance(document, Mapping):
        raise InvalidSpec([Problem("manifest", "is no object")])
    number = document.get("format")
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise InvalidSpec(
            [Problem("manifest.format", f"is {number!r}; this version reads up to {FORMAT}")],
            hint="use the version of cloudless that made the backup, or a newer one",
        )
    values = {name: _take(document, name, kind) for name, kind in _FIELDS.items()}
    members = tuple(_member(entry, index) for index, entry in enumerate(_take(document, "members", list)))
    parts = tuple(_part(entry, index) for index, entry in enumerate(_take(document, "parts", list)))
    if len({part.name for part in parts}) != len(parts) or STATE not in {part.name for part in parts}:
        raise InvalidSpec([Problem("manifest.parts", "must name each part once, the state among them")])
    return Manifest(format=number, members=members, parts=parts, **values)


_FIELDS: dict[str, type] = {
    "cluster_id": str,
    "etcd_cluster_id": str,
    "revision": int,
    "state_digest": str,
    "created_at_ms": int,
    "created_by": str,
    "cloudless_version": str,
    "etcd_version": str,
    "proven": bool,
}


def _take(document: Mapping[str, Any], name: str, kind: type, where: str = "manifest") -> Any:
    value: Any = document.get(name)
    fits = isinstance(value, kind) and isinstance(value, bool) is (kind is bool)
    if not fits or (isinstance(value, int) and value < 0):
        raise InvalidSpec([Problem(f"{where}.{name}", f"is not as it must be: {value!r:.60}")])
    return value


def _part(entry: Any, index: int) -> Part:
    where = f"manifest.parts[{index}]"
    if not isinstance(entry, Mapping):
        raise InvalidSpec([Problem(where, "is no object")])
    sha256 = _take(entry, "sha256", str, where)
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise InvalidSpec([Problem(f"{where}.sha256", "is no SHA-256")])
    return Part(name=_take(entry, "name", str, where), size_bytes=_take(entry, "size_bytes", int, where), sha256=sha256)


def _member(entry: Any, index: int) -> BackupMember:
    where = f"manifest.members[{index}]"
    if not isinstance(entry, Mapping):
        raise InvalidSpec([Problem(where, "is no object")])
    return BackupMember(
        name=_take(entry, "name", str, where),
        peer_urls=tuple(str(url) for url in _take(entry, "peer_urls", list, where)),
        learner=_take(entry, "learner", bool, where),
    )
