"""Remember with whom this node agreed to found a cluster (`core.membership.named_founding`).

On disk before anybody is told: a node that gave its word and forgot it in a restart could found a second cluster with
others. Only a node that never belonged to a cluster asks for it.
"""

from __future__ import annotations

import json
from pathlib import Path

from cloudless.adapters.member.durable import write_durably
from cloudless.errors import DataLost


def read_word(path: Path) -> tuple[str, ...]:
    """Return the node ids agreed on, none if no word was given. Raises DataLost if it cannot be understood."""
    try:
        return tuple(str(node_id) for node_id in json.loads(path.read_text(encoding="utf-8"))["founders"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise DataLost(
            f"{path} cannot be understood: {error}",
            hint="delete it if no cluster was founded yet; otherwise join with CLOUDLESS_RAFT_JOIN_ADDR",
        ) from error


def write_word(path: Path, founders: tuple[str, ...]) -> None:
    """Give the word, durably. Raises OSError."""
    write_durably(path, json.dumps({"founders": founders}))
