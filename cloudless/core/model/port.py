"""Ports: where a task is reached."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloudless.core.model.evolving import Evolving


class PortProtocol(Enum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Evolving):
    """A port the task listens on. `host_port` 0 lets the agent choose a free one.

    The task finds the number in `CLOUDLESS_PORT_<NAME>`; `$(CLOUDLESS_PORT_<NAME>)` in its command,
    arguments and environment is replaced by it. `container_port` is the number inside a container;
    0 means the same as the host's.
    """

    name: str
    host_port: int = 0
    container_port: int = 0
    protocol: PortProtocol = PortProtocol.TCP
