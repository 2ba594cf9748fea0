"""What is done to the cluster, each with its repair: every fault returns when nothing of it is left but its wounds.

A fault that is cancelled half-way lets go of what it froze; what it killed is then ended with the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.member.pidfile import identify
from cloudless.cli.dev.proof import running_tasks
from cloudless.cli.dev.table import send
from cloudless.cli.methods import LIST_NODES, TRANSFER_LEADER, UPDATE_NODE
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.cluster_pb2 import TransferLeaderRequest
from cloudless.rpc.v1.node_pb2 import ListNodesRequest, UpdateNodeRequest
from cloudless.testing.soak import workloads
from cloudless.testing.soak.ground import Ground, until

_DOWN_MAX_S = 3.0
_FROZEN_MIN_S, _FROZEN_MAX_S = 0.3, 8.0
_AGENT_FROZEN_MAX_S = 2.5
"""Below the node timeout: a node that is silent for less keeps its tasks' state."""
_AGENT_LOST_S = (6.0, 10.0)
"""Above the node timeout: its tasks are replaced where the workload wants that, and must not run twice afterwards."""
_DRAINED_S = 60.0
_RESTARTED_S = 60.0
_COMPACT_S = 5.0


@dataclass(frozen=True, slots=True)
class Injected:
    """What was done, in words, and the nodes whose tasks it moves by right."""

    text: str
    emptied: frozenset[str] = frozenset()


async def kill_coordinator(ground: Ground) -> Injected:
    """Alone, or with its etcd as if its host had died."""
    name = ground.mortal(ground.coordinators)
    host = ground.random.random() < 0.5
    if host:
        await ground.signal(f"{name}/etcd", signal.SIGKILL)
    await ground.signal(name, signal.SIGKILL)
    await _stay_down(ground)
    await ground.start(name)
    return Injected(f"kill {name}{' and its etcd' if host else ''}")


async def kill_many(ground: Ground) -> Injected:
    """Kill everything that may be killed at once, a majority of the coordinators with it; start it in random order."""
    names = [name for name in (*ground.coordinators, *ground.agents) if name not in ground.survivors]
    for name in names:
        await ground.signal(f"{name}/etcd", signal.SIGKILL)
        await ground.signal(name, signal.SIGKILL)
    await _stay_down(ground)
    for name in ground.random.sample(names, len(names)):
        await ground.start(name)
    return Injected(f"kill {', '.join(names)} and their etcd")


async def kill_etcd(ground: Ground) -> Injected:
    name = ground.random.choice(ground.coordinators)
    await ground.signal(f"{name}/etcd", signal.SIGKILL)
    return Injected(f"kill {name}/etcd")


async def kill_agent(ground: Ground) -> Injected:
    name = ground.mortal(ground.agents)
    await ground.signal(name, signal.SIGKILL)
    await _stay_down(ground)
    await ground.start(name)
    return Injected(f"kill {name}")


async def kill_task(ground: Ground) -> Injected:
    """Kill a task of the workload that is changed all the time, if it has one: its agent starts it again."""
    tasks = await running_tasks(ground.client, workloads.NAMESPACE, workloads.MOVING)
    if not tasks:
        return Injected("kill a task: none runs")
    task_id = ground.random.choice(sorted(tasks))
    who = identify(tasks[task_id].pid)
    if who is not None:
        send(who, signal.SIGKILL)
    return Injected(f"kill task {task_id}")


async def freeze_coordinator(ground: Ground) -> Injected:
    return await _freeze(ground, ground.random.choice(ground.coordinators), (_FROZEN_MIN_S, _FROZEN_MAX_S))


async def freeze_etcd(ground: Ground) -> Injected:
    name = f"{ground.random.choice(ground.coordinators)}/etcd"
    return await _freeze(ground, name, (_FROZEN_MIN_S, _FROZEN_MAX_S))


async def freeze_agent(ground: Ground) -> Injected:
    return await _freeze(ground, ground.random.choice(ground.agents), (_FROZEN_MIN_S, _AGENT_FROZEN_MAX_S))


async def lose_agent(ground: Ground) -> Injected:
    return await _freeze(ground, ground.random.choice(ground.agents), _AGENT_LOST_S)


async def transfer(ground: Ground) -> Injected:
    try:
        await ground.client.call(TRANSFER_LEADER, TransferLeaderRequest())
    except CloudlessError as error:
        return Injected(f"transfer the leadership: {error.code}")
    return Injected("transfer the leadership")


async def rolling_restart(ground: Ground) -> Injected:
    """Stop and start every coordinator that may be, one after the other, each once the one before is back."""
    for name in ground.coordinators:
        if name not in ground.survivors:
            await ground.signal(name, signal.SIGTERM)
            await ground.start(name)
            if await ground.health.wait_settled(_RESTARTED_S) is None:
                raise TimeoutError(f"rolling restart, after {name}: {'; '.join(ground.health.findings())}")
    return Injected("restart the coordinators one by one")


async def drain(ground: Ground) -> Injected:
    """Empty a node, then let it back."""
    name = ground.random.choice(ground.agents)
    await ground.client.call(UPDATE_NODE, UpdateNodeRequest(node_id=name, draining=True), timeout_s=_DRAINED_S)

    async def is_empty() -> bool:
        nodes = (await ground.client.call(LIST_NODES, ListNodesRequest())).nodes
        return any(node.id == name and node.phase == "DRAINED" for node in nodes)

    try:
        await until(is_empty, f"{name} is drained", _DRAINED_S)
    finally:
        back = UpdateNodeRequest(node_id=name, draining=False, cordoned=False)
        await ground.client.call(UPDATE_NODE, back, timeout_s=_DRAINED_S)
    return Injected(f"drain {name}", frozenset({name}))


async def compact(ground: Ground) -> Injected:
    """Forget the store's history up to now, through whichever member answers."""
    for address in ground.random.sample(ground.etcd_addresses, len(ground.etcd_addresses)):
        store = EtcdStore(address)
        with contextlib.suppress(CloudlessError):
            revision = await store.current_revision(timeout_s=_COMPACT_S)
            await store.compact(revision, timeout_s=_COMPACT_S)
            await store.close()
            return Injected(f"compact at revision {revision}")
        await store.close()
    return Injected("compact: no member answered")


async def _change(ground: Ground, act: Callable[[Ground], Awaitable[str]]) -> Injected:
    return Injected(await act(ground))


FAULTS: dict[str, Callable[[Ground], Awaitable[Injected]]] = {
    "kill-coordinator": kill_coordinator,
    "kill-etcd": kill_etcd,
    "kill-agent": kill_agent,
    "kill-many": kill_many,
    "kill-task": kill_task,
    "freeze-coordinator": freeze_coordinator,
    "freeze-etcd": freeze_etcd,
    "freeze-agent": freeze_agent,
    "lose-agent": lose_agent,
    "transfer": transfer,
    "rolling-restart": rolling_restart,
    "scale": lambda ground: _change(ground, workloads.scale),
    "update": lambda ground: _change(ground, workloads.update),
    "recreate": lambda ground: _change(ground, workloads.recreate),
    "drain": drain,
    "compact": compact,
}


async def _freeze(ground: Ground, name: str, range_s: tuple[float, float]) -> Injected:
    frozen_s = ground.random.uniform(*range_s)
    who = await ground.find(name)
    if who is None:
        return Injected(f"freeze {name}: it does not run")
    try:
        send(who, signal.SIGSTOP)
        await asyncio.sleep(frozen_s)
    finally:
        send(who, signal.SIGCONT)
    return Injected(f"freeze {name} for {frozen_s:.1f} s")


async def _stay_down(ground: Ground) -> None:
    await asyncio.sleep(ground.random.uniform(0.0, _DOWN_MAX_S))
