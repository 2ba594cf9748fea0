"""Choose the ports of a task: the fixed ones as asked, the others from a range the kernel gives to nobody.

A port is tested by taking it for an instant; another process can still be quicker, and the task then fails
to listen by itself. The range lies below the kernel's own (32768 and up), where any outgoing connection could
take a chosen port between the test and the task's start.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping, Sequence

from cloudless.agent.config import AgentLimits
from cloudless.core.model import Port, PortProtocol
from cloudless.errors import PortTaken


def resolve_ports(
    ports: Sequence[Port], kept: Mapping[str, int], taken: Collection[int], limits: AgentLimits
) -> dict[str, int]:
    """Return a number for each port: the fixed one, else the `kept` one if it is free, else a fresh one.

    `taken` are the numbers of other tasks. Raises PortTaken, naming the port.
    """
    resolved: dict[str, int] = {}
    for port in ports:
        busy = {*taken, *resolved.values()}
        if port.host_port:
            if not is_free(port.host_port, port.protocol):
                raise PortTaken(
                    f"port {port.host_port} ({port.name}) is in use on this node",
                    hint="stop what listens there, or set hostPort 0 to have a free one chosen",
                )
            resolved[port.name] = port.host_port
        else:
            before = kept.get(port.name, 0)
            usable = before and before not in busy and is_free(before, port.protocol)
            resolved[port.name] = before if usable else _choose(busy, port, limits)
    return resolved


def is_free(port: int, protocol: PortProtocol = PortProtocol.TCP) -> bool:
    """Return whether nobody listens on `port` on any of this machine's addresses."""
    tcp = protocol is PortProtocol.TCP
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as probe:
        if tcp:
            # As servers do, so that connections of a former attempt in TIME_WAIT do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
            if tcp:
                probe.listen(1)
        except OSError:
            return False
    return True


def _choose(busy: Collection[int], port: Port, limits: AgentLimits) -> int:
    for _ in range(limits.port_tries_max):
        number = random.randint(limits.port_lowest, limits.port_highest)
        if number not in busy and is_free(number, port.protocol):
            return number
    raise PortTaken(f"no free port for {port.name} from {limits.port_lowest} to {limits.port_highest}")
