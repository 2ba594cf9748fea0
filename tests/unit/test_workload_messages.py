"""What is kept of a workload for the API is always what would be made of it now."""

import random

import pytest

from cloudless.coordinator.api.workload_messages import WorkloadMessages, to_workload
from cloudless.core import keys
from cloudless.core.model import NodeSpec, TaskState
from cloudless.ports import Delete, Put, Txn
from cloudless.rpc.packed import Packed
from cloudless.rpc.v1 import workload_pb2 as pb
from cloudless.testing.builders import build_workload
from cloudless.testing.virtual_time import virtually
from tests.unit.leading import Cluster, leading, report

NAMES = ("web", "api", "job")
NODES = ("n1", "n2")
TASKS = ("t1", "t2", "t3")


async def change_something(cluster: Cluster, rng: random.Random) -> None:
    """Write what a user, the leader, an agent or a vandal might."""
    node, task = rng.choice(NODES), rng.choice(TASKS)
    match rng.randrange(8):
        case 0:
            await cluster.add_workload(build_workload(rng.choice(NAMES), replicas=rng.randrange(4)))
        case 1:
            await cluster.add_node(node)
        case 2:
            await cluster.set_reachable(node, rng.random() < 0.5)
        case 3:
            await cluster.add_task(task, node)
        case 4:
            state = rng.choice(tuple(TaskState))
            await cluster.put(keys.task_observed(task), report(task, rng.randrange(1, 1000), state, node))
        case 5:
            await cluster.put(keys.node_spec(node), NodeSpec(draining=rng.random() < 0.5))
        case 6:
            every = (*map(keys.task_desired, TASKS), *map(keys.node_info, NODES), keys.workload("default", "web"))
            await cluster.memory.txn(Txn(then=(Delete(rng.choice(every)),)), timeout_s=1)
        case _:
            every = (*map(keys.task_desired, TASKS), *map(keys.node_info, NODES))
            await cluster.memory.txn(Txn(then=(Put(rng.choice(every), b"\xff not a record"),)), timeout_s=1)


@pytest.mark.parametrize("seed", range(10))
@virtually
async def test_a_kept_message_is_what_would_be_made_now(seed: int) -> None:
    rng = random.Random(seed)
    async with leading() as cluster:
        messages = WorkloadMessages(cluster.replica)
        for _ in range(100):
            await change_something(cluster, rng)
            await cluster.replica.linearize(timeout_s=5)
            machine = cluster.replica.machine
            for workload in machine.workloads.values():
                assert messages.of(workload) == to_workload(machine, workload)
                assert messages.of(workload) is messages.of(workload)
            every = list(machine.workloads.values())
            packed = Packed(pb.ListWorkloadsResponse(next_token="next"), messages.entries_of(every))
            whole = pb.ListWorkloadsResponse(next_token="next", workloads=[messages.of(one) for one in every])
            assert pb.ListWorkloadsResponse.FromString(packed.SerializeToString()) == whole
