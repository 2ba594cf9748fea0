"""What a coordinator makes of who answers at the addresses it was given.

An address says nothing about who is behind it: a name may stand for this very process, a load balancer may lead back
to it, a list may hold coordinators of two clusters. So every answer carries who speaks (an id drawn at each start of
a process) and for which cluster:

::

    who answers                                       then
    ────────────────────────────────────────────────  ───────────────────────────────────────────────────────────
    this process itself                               the address counts for nothing, and that is said
    members of one cluster                            that is the cluster
    members of two clusters, this node of neither     refused: nobody can say which one was meant
    members of another cluster than this node's       never asked to let it in; refused if nobody else answers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Voice:
    """One answer. `cluster_id` is "" for one that belongs to no cluster; `instance_id` "" for an older version.

    `supersedes` are clusters that this one was rebuilt from: their members belong to it.
    """

    node_id: str
    instance_id: str = ""
    cluster_id: str = ""
    supersedes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answerers:
    """The addresses that answered, by who is behind them."""

    own: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    foreign: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refusal: str = ""


def sort_answers(own_instance_id: str, own_cluster_id: str, voices: Mapping[str, Voice]) -> Answerers:
    """Sort the answers by address. `own_cluster_id` is "" for a node that never belonged to a cluster.

    `usable` are those that may be asked for anything: neither this process nor of another cluster. `refusal` says why
    none of this may be followed, "" if it may.
    """
    own = tuple(sorted(a for a, voice in voices.items() if voice.instance_id and voice.instance_id == own_instance_id))
    others = {address: voices[address] for address in sorted(voices) if address not in own}
    clusters: dict[str, list[str]] = {}
    for address, voice in others.items():
        if voice.cluster_id:
            clusters.setdefault(voice.cluster_id, []).append(address)
    if not own_cluster_id and len(clusters) > 1:
        return Answerers(own=own, refusal=f"the addresses lead to different clusters: {_tell(clusters)}")
    heirs = [voice.cluster_id for voice in others.values() if own_cluster_id in voice.supersedes]
    ours = (own_cluster_id, *heirs)
    foreign = {id: tuple(found) for id, found in sorted(clusters.items()) if own_cluster_id and id not in ours}
    strange = {address for found in foreign.values() for address in found}
    usable = tuple(address for address in others if address not in strange)
    refusal = ""
    if strange and not any(others[address].cluster_id for address in usable):
        refusal = f"this node belongs to cluster {own_cluster_id}, the addresses lead to another: {_tell(foreign)}"
    return Answerers(own, usable, foreign, refusal)


def _tell(clusters: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{id} at {', '.join(addresses)}" for id, addresses in sorted(clusters.items()))
