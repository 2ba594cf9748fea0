"""What part of this machine a coordinator's etcd may have: memory, and its turn on the processors."""

from __future__ import annotations

from cloudless.adapters.host.machine import Machine
from cloudless.adapters.host.priority import prefer

ETCD_NICENESS = -10
COORDINATOR_NICENESS = -5
MEMORY_LEAST_BYTES, MEMORY_MOST_BYTES = 160 << 20, 1 << 30


def share_of_memory(machine: Machine) -> int:
    """Return the bytes that etcd should stay below on this machine: a quarter of what there is, within bounds.

    With less than it needs it would collect garbage all the time, with up to half of its processor time: 20,000 tasks
    and their history are some 300 MB.
    """
    there_is = [size for size in (machine.memory_bytes, machine.memory_limit_bytes) if size > 0]
    return max(MEMORY_LEAST_BYTES, min(MEMORY_MOST_BYTES, min(there_is, default=0) // 4))


def prefer_etcd(pid: int) -> bool:
    """Let etcd go before all else on this machine; return whether that was allowed."""
    return prefer(pid, ETCD_NICENESS)


def prefer_coordinator(pid: int) -> bool:
    """Let this process go before all but etcd: it has a lease to renew; return whether that was allowed."""
    return prefer(pid, COORDINATOR_NICENESS)
