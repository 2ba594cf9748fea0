"""The objects a load changes: small workloads that run nothing, and nodes that no agent stands behind.

Each caller has objects of its own, so that no two writes meet at one key.
"""

from __future__ import annotations

import json
import time

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.cli.methods import APPLY_WORKLOAD, LIST_NODES
from cloudless.core import keys
from cloudless.core.model import NodeInfo, Resources
from cloudless.ports import Put, Txn
from cloudless.rpc.codec import encode_record
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions
from cloudless.rpc.v1.node_pb2 import ListNodesRequest
from cloudless.rpc.v1.workload_pb2 import ApplyWorkloadRequest
from tests.bench.stage import Api

NAMESPACE = "bench"
_DOCUMENTS_AT_ONCE = 50


def manifest(name: str, number: int, namespace: str = NAMESPACE) -> str:
    """Return one small workload without replicas, as JSON; `number` makes each text a change."""
    return json.dumps(
        {
            "apiVersion": "cloudless/v1",
            "kind": "Workload",
            "metadata": {"name": name, "namespace": namespace, "annotations": {"number": str(number)}},
            "spec": {"executor": "process", "command": ["true"], "replicas": 0},
        }
    )


def manifests(names: list[str], number: int, namespace: str = NAMESPACE) -> str:
    return "\n---\n".join(manifest(name, number, namespace) for name in names)


async def create_workloads(api: Api, namespace: str, count: int) -> list[str]:
    """Create `count` workloads and return their names."""
    names = [f"w-{index:04d}" for index in range(count)]
    for start in range(0, count, _DOCUMENTS_AT_ONCE):
        text = manifests(names[start : start + _DOCUMENTS_AT_ONCE], 0, namespace)
        await api.call(0, APPLY_WORKLOAD, ApplyWorkloadRequest(manifest=text))
    return names


async def create_nodes(endpoint: str, api: Api, count: int) -> list[str]:
    """Enrol `count` nodes as agents would, straight in etcd, and wait until every coordinator knows them."""
    nodes = [f"bench-{index:04d}" for index in range(count)]
    store = EtcdStore(endpoint)
    for start in range(0, count, _DOCUMENTS_AT_ONCE):
        puts = [_enrolment(node) for node in nodes[start : start + _DOCUMENTS_AT_ONCE]]
        await store.txn(Txn(then=tuple(puts)), timeout_s=10.0)
    await store.close()
    read = ReadOptions(consistency=CONSISTENCY_LINEARIZABLE)
    for coordinator in range(3):
        await api.call(coordinator, LIST_NODES, ListNodesRequest(read=read, limit=1))
    return nodes


def _enrolment(node: str) -> Put:
    info = NodeInfo(
        id=node, name=node, zone="zone-a", address="127.0.0.1:1", capacity=Resources(4000, 4096),
        executors=("process",), enrolled_at_ms=time.time_ns() // 1_000_000,
    )  # fmt: skip
    return Put(keys.node_info(node), encode_record(info))
