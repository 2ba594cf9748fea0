"""What must be true after every round, whatever was done: each oracle returns what is wrong, in words.

::

    whole       three voters, one leader by its own metric, every node READY, equal digests at one revision
    store       etcd's members hold equal keys; the coordinators' state equals one read afresh from the store
    untouched   tasks of the steady workload are the same processes, except on nodes that were emptied
    processes   one process for each running task, and none for any other
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.system import SystemClock
from cloudless.cli.dev.layout import AgentPlan
from cloudless.cli.dev.orphans import find_orphans
from cloudless.cli.dev.proof import Running, restarted_tasks, running_tasks
from cloudless.cli.methods import GET_DIGEST, LIST_TASKS
from cloudless.coordinator.replica import Replica
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest
from cloudless.rpc.v1.workload_pb2 import ListTasksRequest
from cloudless.testing.soak.ground import POLL_S, Ground
from cloudless.testing.soak.workloads import NAMESPACE, STEADY

_AGREE_S = 20.0
_READ_S = 10.0


@dataclass(frozen=True, slots=True)
class Before:
    """What was true before a round."""

    tasks: dict[str, Running]


async def look_before(ground: Ground) -> Before:
    return Before(await running_tasks(ground.client, NAMESPACE, STEADY))


async def judge(ground: Ground, before: Before, emptied: frozenset[str]) -> list[str]:
    """Return everything that is wrong now that the cluster should have healed."""
    kept = {task_id: was for task_id, was in before.tasks.items() if was.node_id not in emptied}
    found = [f"task restarted: {text}" for text in await restarted_tasks(ground.client, NAMESPACE, STEADY, kept)]
    if not before.tasks:
        found.append("proves nothing: the steady workload had no running task before the round")
    found += await ground.health.leader_metrics()
    found += await _hashes(ground)
    found += await _state_afresh(ground)
    found += await _processes(ground)
    return found


async def _hashes(ground: Ground) -> list[str]:
    """Compare the members' keys at one revision. Each compacts in its own time, so agreeing may take a moment."""
    deadline_s = time.monotonic() + _AGREE_S
    while True:
        try:
            revision = (await ground.client.call(GET_DIGEST, GetDigestRequest())).revision
            hashes = {address: await _hash(address, revision) for address in ground.etcd_addresses}
        except CloudlessError as error:
            hashes, problem = {}, error.message
        else:
            problem = f"HashKV differs at revision {revision}: {hashes}"
        if hashes and len(set(hashes.values())) == 1:
            return []
        if time.monotonic() > deadline_s:
            return [problem]
        await asyncio.sleep(POLL_S)


async def _hash(address: str, revision: int) -> tuple[int, int]:
    admin = EtcdAdmin(f"http://{address}")
    try:
        found = await admin.hash_kv(revision)
    finally:
        admin.close()
    return found.hash, found.compact_revision


async def _state_afresh(ground: Ground) -> list[str]:
    """Build a state of our own from the store and compare its digest with every coordinator's."""
    store = EtcdStore(ground.random.choice(ground.etcd_addresses))
    replica = Replica(store, SystemClock())
    following = asyncio.create_task(replica.run())
    try:
        async with asyncio.timeout(_READ_S):
            await replica.loaded.wait()
        revision, digest = replica.machine.revision, f"{replica.machine.digest:032x}"
        found = []
        for name, client in ground.clients.items():
            told = await client.call(GET_DIGEST, GetDigestRequest(revision=revision), timeout_s=_READ_S)
            if told.digest != digest:
                found.append(f"{name}'s digest at revision {revision} is {told.digest}, read afresh it is {digest}")
        return found
    except (CloudlessError, TimeoutError) as error:
        return [f"the state could not be compared with the store: {error!r}"]
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await store.close()


async def _processes(ground: Ground) -> list[str]:
    """Compare the living task processes on this machine with the tasks that are said to run."""
    deadline_s = time.monotonic() + _AGREE_S
    while True:
        tasks = (await ground.client.call(LIST_TASKS, ListTasksRequest(namespace=NAMESPACE))).tasks
        said = Counter(f"{t.desired.node_id}/{t.desired.id}" for t in tasks if t.state == "RUNNING")
        living = Counter(await asyncio.to_thread(_living_tasks, ground))
        if said == living:
            return []
        if time.monotonic() > deadline_s:
            more, missing = living - said, said - living
            return [f"processes without a running task: {dict(more)}; tasks without a process: {dict(missing)}"]
        await asyncio.sleep(POLL_S)


def _living_tasks(ground: Ground) -> list[str]:
    agents = {plan.name for plan in ground.table.layout.plans if isinstance(plan, AgentPlan)}
    return [name for name in find_orphans(ground.table) if name.split("/")[0] in agents]
