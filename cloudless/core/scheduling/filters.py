"""Where a task may run: each filter names what is in the way, or returns None.

A filter that can tell by the facts of a `Site` looks at that, once for all of its nodes; the others look at
one node's `Room`, and at what the task wants of its neighbours there. A new filter is a function added to
`SITE_FILTERS` or `ROOM_FILTERS` (then also to `may_take`). Their order is the order in which obstacles are named, so
put what a person should fix first at the front. Only the first obstacle of a node is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from cloudless.core.abilities import WORDS
from cloudless.core.model import PortProtocol, Topology
from cloudless.core.scheduling.ask import Ask, HostPort
from cloudless.core.scheduling.neighbours import Bond, Neighbours, Selection
from cloudless.core.scheduling.node_terms import describe_term, holds
from cloudless.core.scheduling.scratch import Room
from cloudless.core.scheduling.site import Site
from cloudless.core.scheduling.taints import FORBIDDING, describe_taint, find_intolerable


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a node is out of the question: `code` is stable, the two texts follow a count (`1 is`, `2 are`).

    `lacking` names the resources short of what is asked.
    """

    code: str
    one: str
    many: str
    lacking: tuple[str, ...] = ()


SiteFilter = Callable[[Ask, Site], Obstacle | None]
RoomFilter = Callable[[Ask, Room, Neighbours], Obstacle | None]

_OFFLINE = Obstacle("offline", "is offline", "are offline")
_ENROLLING = Obstacle("enrolling", "has not been reached yet", "have not been reached yet")
_DRAINING = Obstacle("draining", "is being drained", "are being drained")
_CORDONED = Obstacle("cordoned", "is cordoned", "are cordoned")
_NOT_STARTING = Obstacle("not-starting", "cannot start tasks now", "cannot start tasks now")


def reachable(ask: Ask, site: Site) -> Obstacle | None:
    """The leader must be able to reach the node's agent."""
    if site.reachable:
        return None
    return _OFFLINE if site.enrolled else _ENROLLING


def open_for_tasks(ask: Ask, site: Site) -> Obstacle | None:
    """A person may have closed the node."""
    if site.draining:
        return _DRAINING
    return _CORDONED if site.cordoned else None


def starting(ask: Ask, site: Site) -> Obstacle | None:
    """A node says itself when it can start nothing: its disk is full."""
    return None if site.starts_tasks else _NOT_STARTING


def executor(ask: Ask, site: Site) -> Obstacle | None:
    """The node's agent must have the executor."""
    name = ask.executor.value
    if name in site.executors:
        return None
    return Obstacle("executor", f"has no {name} executor", f"have no {name} executor")


def ability(ask: Ask, site: Site) -> Obstacle | None:
    """The node's agent must be able to keep all that the task is promised."""
    missing = [WORDS[name] for name in ask.needs if name not in site.capabilities]
    if not missing:
        return None
    text = f"cannot {' and '.join(missing)}"
    return Obstacle("ability", text, text)


def region(ask: Ask, site: Site) -> Obstacle | None:
    wanted = ask.placement.regions
    if not wanted or site.region in wanted:
        return None
    return _outside("region", wanted)


def zone(ask: Ask, site: Site) -> Obstacle | None:
    wanted = ask.placement.zones
    if not wanted or site.zone in wanted:
        return None
    return _outside("zone", wanted)


def taints(ask: Ask, site: Site) -> Obstacle | None:
    """Each taint that keeps tasks away must be tolerated."""
    if not site.taints:
        return None
    taint = find_intolerable(site.taints, ask.placement.tolerations, FORBIDDING)
    if taint is None:
        return None
    text = f"the taint {describe_taint(taint)}, which is not tolerated"
    return Obstacle("taint", f"has {text}", f"have {text}")


def node_selector(ask: Ask, site: Site) -> Obstacle | None:
    """All labels asked for must be on the node with the same value."""
    if not ask.placement.node_selector:
        return None
    missing = [f"{k}={v}" for k, v in sorted(ask.placement.node_selector.items()) if site.label(k) != v]
    if not missing:
        return None
    text = ", ".join(missing)
    return Obstacle("node-selector", f"lacks the label {text}", f"lack the label {text}")


def node_affinity(ask: Ask, site: Site) -> Obstacle | None:
    """Each required term must hold for the node's labels."""
    for term in ask.placement.node_affinity:
        if not term.weight and not holds(term, site.label(term.key)):
            text = f"not like {describe_term(term)}"
            return Obstacle("node-affinity", f"is {text}", f"are {text}")
    return None


def workload_affinity(ask: Ask, room: Room, neighbours: Neighbours) -> Obstacle | None:
    """Required neighbours must be there; those that must not be, and that want it away themselves, must not."""
    broken = neighbours.find_broken(room.places) if neighbours.required else None
    return None if broken is None else _estranged(broken)


def capacity(ask: Ask, room: Room, neighbours: Neighbours) -> Obstacle | None:
    """What is asked must be free."""
    if ask.requests.fits_in(room.free):
        return None
    return _short_of(ask.requests.lacking(room.free))


def host_ports(ask: Ask, room: Room, neighbours: Neighbours) -> Obstacle | None:
    """Fixed ports must be free on the node."""
    taken = [port for port in ask.host_ports if port in room.ports]
    if not taken:
        return None
    text = ", ".join(describe_port(port) for port in taken)
    return Obstacle("host-port", f"has port {text} taken", f"have port {text} taken")


SITE_FILTERS: tuple[SiteFilter, ...] = (
    reachable,
    open_for_tasks,
    starting,
    executor,
    ability,
    region,
    zone,
    node_selector,
    node_affinity,
    taints,
)
ROOM_FILTERS: tuple[RoomFilter, ...] = (workload_affinity, capacity, host_ports)


def find_obstacle(ask: Ask, room: Room, neighbours: Neighbours) -> Obstacle | None:
    """Return the first thing in the way, None if the task may run there."""
    return find_site_obstacle(ask, room.shelf.site) or find_room_obstacle(ask, room, neighbours)


def find_obstacles(ask: Ask, room: Room, neighbours: Neighbours) -> tuple[Obstacle, ...]:
    """Return all that is in the way."""
    found = [check(ask, room.shelf.site) for check in SITE_FILTERS]
    found += [check(ask, room, neighbours) for check in ROOM_FILTERS]
    return tuple(obstacle for obstacle in found if obstacle is not None)


def find_site_obstacle(ask: Ask, site: Site) -> Obstacle | None:
    """Return the first thing in the way that all nodes of a site share."""
    for check in SITE_FILTERS:
        obstacle = check(ask, site)
        if obstacle is not None:
            return obstacle
    return None


def find_room_obstacle(ask: Ask, room: Room, neighbours: Neighbours) -> Obstacle | None:
    """Return the first thing in the way on a node whose site has nothing against the task."""
    for check in ROOM_FILTERS:
        obstacle = check(ask, room, neighbours)
        if obstacle is not None:
            return obstacle
    return None


def may_take(ask: Ask, room: Room, neighbours: Neighbours) -> bool:
    """Return whether no room filter has anything against it, without the words, as thousands of nodes may be asked."""
    return (
        ask.requests.fits_in(room.free)
        and (not ask.host_ports or room.ports.isdisjoint(ask.host_ports))
        and (not neighbours.required or neighbours.find_broken(room.places) is None)
    )


def describe_port(port: HostPort) -> str:
    """Return a port as people write it: `80`, `53/udp`."""
    number, protocol = port
    return str(number) if protocol is PortProtocol.TCP else f"{number}/{protocol.value}"


@cache
def _short_of(lacking: tuple[str, ...]) -> Obstacle:
    """Return one of the few obstacles there are: in a full cluster it is named for each node and ask."""
    text = " and ".join(lacking)
    return Obstacle("capacity", f"lacks {text}", f"lack {text}", lacking)


_WITHIN = {Topology.ZONE: "in a zone ", Topology.REGION: "in a region "}


def _estranged(bond: Bond) -> Obstacle:
    """Say which neighbour is missing, or is there and must not be."""
    return _describe_neighbour(bond.selection, bond.topology, bond.against, bond.keeper)


@lru_cache(maxsize=4_096)
def _describe_neighbour(selection: Selection, topology: Topology, against: bool, keeper: str) -> Obstacle:
    """Return one of the few obstacles there are: it is named for thousands of nodes."""
    kind = selection.workload or ", ".join(f"{key}={value}" for key, value in selection.labels)
    code = "workload-anti-affinity" if against else "workload-affinity"
    text = f"{'with' if against else 'without'} a task of {kind}"
    if keeper:
        text = f"with a task of {keeper}, which keeps such tasks away"
    place = _WITHIN.get(topology, "")
    return Obstacle(code, f"is {place}{text}", f"are {place}{text}")


def _outside(what: str, wanted: tuple[str, ...]) -> Obstacle:
    text = " or ".join(wanted)
    return Obstacle(what, f"is outside {what} {text}", f"are outside {what} {text}")
