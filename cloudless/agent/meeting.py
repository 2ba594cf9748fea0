"""Before an agent's first session: do its seeds lead to one cluster?

An agent belongs to the cluster whose welcome it takes first, for good. If its seeds led to two, chance would decide. So
an agent without a cluster first asks everybody at its seeds which one they belong to. Who does not answer in time, or
may not tell, says nothing against them: later on, a coordinator of another cluster is refused at its welcome. With
TLS there is nothing to ask: a certificate is of one cluster.
"""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from cloudless.adapters.grpc.channel import INSECURE
from cloudless.agent.phonebook import Seeds
from cloudless.core.discovery.answers import Voice, sort_answers
from cloudless.errors import FormationRefused
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1.cluster_pb2_grpc import ClusterServiceStub

ASK_TIMEOUT_S = 1.0


async def refuse_two_clusters(seeds: Seeds) -> None:
    """Raise FormationRefused if the seeds lead to different clusters; takes as long as the slowest answer."""
    await seeds.refresh()
    addresses = [endpoint.address for endpoint in seeds.current()]
    if len(addresses) < 2:
        return
    answers = await asyncio.gather(*(_ask(address) for address in addresses))
    voices = {address: voice for address, voice in zip(addresses, answers, strict=True) if voice is not None}
    refusal = sort_answers("", "", voices).refusal
    if refusal:
        raise FormationRefused(
            f"this agent belongs to no cluster yet, and {refusal}",
            hint="give CLOUDLESS_COORDINATOR_ADDR coordinators of one cluster only",
        )


async def _ask(address: str) -> Voice | None:
    channel = INSECURE.open(address)
    try:
        stub = ClusterServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = await stub.GetFormation(pb.GetFormationRequest(), timeout=ASK_TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return None
    finally:
        await channel.close()
    return Voice(answer.node_id, answer.instance_id, answer.etcd_cluster_id if answer.phase == "member" else "")
