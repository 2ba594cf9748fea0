"""Remember, beside etcd's directory, how far this member and the others have got, and where they are.

    reached     what is certainly in our own log; a shorter log is not ours of today
    peer_url    the address under which the cluster knows our member
    heard       how far the others' members have got, to tell them when they come back
    doubt       why the data must not be started again, "" if nothing is known against them
    addresses   the other living coordinators' API addresses; see `learned` for those that are down too
    members     the member list, to know each other again when all have moved

Unlike the marker this may be lost or damaged: it then bears witness to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.durable import write_durably
from cloudless.adapters.member.marker import Marker
from cloudless.adapters.member.wal import last_index
from cloudless.core.membership.relocation import Seat
from cloudless.core.membership.returning import Reached, find_outdated

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """What one node knows of its own member and of the others, by node id."""

    reached: Reached | None = None
    peer_url: str = ""
    heard: Mapping[str, Reached] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    doubt: str = ""
    members: Mapping[str, Seat] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Return what is remembered at `path`, nothing if there is no file or no sense in it."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                return cls()
            reached = document["reached"]
            return cls(
                reached=_reached(reached) if reached else None,
                peer_url=str(document["peer_url"]),
                heard={str(id): _reached(said) for id, said in document["heard"].items()},
                addresses={str(id): str(address) for id, address in document["addresses"].items()},
                doubt=str(document.get("doubt", "")),
                members={str(id): Seat(**seat) for id, seat in document.get("members", {}).items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, path: Path) -> None:
        """Replace the file at `path`, durably. Raises OSError."""
        write_durably(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=1))


def find_shortfall(datadir: DataDir) -> str:
    """Return why the log is not whole by this node's own note, "" if it is as far as that tells."""
    noted = Progress.read(datadir.progress).reached
    witnesses = [] if noted is None else [("this node itself", noted)]
    return find_outdated(Marker.read(datadir.marker).member_id, last_index(datadir.etcd_dir), witnesses)


def _reached(document: dict[str, object]) -> Reached:
    return Reached(str(document["member_id"]), int(str(document["raft_index"])))
