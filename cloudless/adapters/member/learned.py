"""Remember, beside etcd's directory, where all coordinators of the cluster are (`core.discovery.learned`).

    cluster_id     etcd's id of the cluster that said so, in hexadecimal
    coordinators   id, API address, and when the cluster last confirmed it, of each that was not removed

What a node asks when its seeds are all gone. Like `progress.json` it may be lost or damaged: then it names nobody.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cloudless.adapters.member.durable import write_durably
from cloudless.core.discovery.learned import Known

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Learned:
    """What one node knows of the cluster's coordinators, itself included."""

    cluster_id: str = ""
    coordinators: tuple[Known, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Learned:
        """Return what is remembered at `path`, nothing if there is no file or no sense in it."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                return cls()
            return cls(
                cluster_id=str(document["cluster_id"]),
                coordinators=tuple(
                    Known(str(one["id"]), str(one["address"]), int(one["confirmed_ms"]))
                    for one in document["coordinators"]
                ),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, path: Path) -> None:
        """Replace the file at `path`, durably. Raises OSError."""
        write_durably(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=1))

    def addresses(self, but: str) -> list[str]:
        """Return where all coordinators but the one of that id are."""
        return [one.address for one in self.coordinators if one.id != but]
