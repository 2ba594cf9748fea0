"""Remember, outside etcd's directory, whether this node's member has ever been part of the cluster.

etcd itself cannot tell an empty directory of a new member from one whose data was deleted: started as "new" it
would form a second cluster, and as "existing" it would vote twice under one id. The marker tells them apart.

    marker        write-ahead log   state     meaning
    ABSENT        no                FRESH     form a cluster or join one
    ABSENT        yes               FOREIGN   someone else's data: refuse
    FORMING       either            FORMING   a start was interrupted: finish it the same way
    BOOTSTRAPPED  yes               PRESENT   start and catch up
    BOOTSTRAPPED  no                LOST      remove this member from the cluster, then add it anew
    LEFT          either            LEFT      it has left for good: join as a new member, and only if told to
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.durable import write_durably
from cloudless.errors import DataLost

_FORMAT = 1


class MarkerState(Enum):
    ABSENT = "absent"
    FORMING = "forming"
    BOOTSTRAPPED = "bootstrapped"
    LEFT = "left"


class DataState(Enum):
    FRESH = "fresh"
    FORMING = "forming"
    PRESENT = "present"
    LOST = "lost"
    FOREIGN = "foreign"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Marker:
    """What a node knows of its membership. Ids are hexadecimal strings, "" until known."""

    state: MarkerState = MarkerState.ABSENT
    node_id: str = ""
    member_id: str = ""
    cluster_id: str = ""
    cluster_token: str = ""
    initial_cluster: tuple[tuple[str, str], ...] = ()
    # The newest etcd that was started on this directory; an older one is refused.
    last_etcd_version: str = ""
    # Clusters that this one was rebuilt from (restore, recovery): data of theirs must not be started again.
    supersedes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Marker:
        """Return the marker at `path`, ABSENT if there is none. Raises DataLost if it cannot be understood."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != _FORMAT:
                raise ValueError("unknown format")
            document["state"] = MarkerState(document["state"])
            document["initial_cluster"] = tuple((str(name), str(url)) for name, url in document["initial_cluster"])
            document["supersedes"] = tuple(str(id) for id in document.get("supersedes", ()))
            return cls(**document)
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataLost(
                f"{path} cannot be understood: {error}",
                hint="restore it from a copy, or remove this member from the cluster and join with an empty directory",
            ) from error

    def write(self, path: Path) -> None:
        """Replace the marker at `path` by this one, durably."""
        write_durably(path, json.dumps({"format": _FORMAT, **asdict(self), "state": self.state.value}, indent=1))


def judge_data(datadir: DataDir) -> DataState:
    """Return what the marker and etcd's log say together; see the table above. Raises DataLost."""
    state = Marker.read(datadir.marker).state
    if state is MarkerState.FORMING:
        return DataState.FORMING
    if state is MarkerState.LEFT:
        return DataState.LEFT
    if state is MarkerState.BOOTSTRAPPED:
        return DataState.PRESENT if datadir.has_wal() else DataState.LOST
    return DataState.FOREIGN if datadir.has_wal() else DataState.FRESH
