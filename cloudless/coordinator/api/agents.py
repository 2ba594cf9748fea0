"""Reach the agent of a task: for what only it can answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.grpc.status import find_detail, from_rpc_error
from cloudless.core.identity.names import IdentityKind, server_name
from cloudless.core.state import Task, View
from cloudless.errors import AgentUnreachable

CONNECT_TIMEOUT_S = 3.0


@asynccontextmanager
async def open_agent(view: View, task: Task, dialler: Dialler) -> AsyncIterator[grpc.aio.Channel]:
    """Give a channel to the agent that the task is on; what fails on it is raised as a typed error.

    Raises AgentUnreachable if nobody answers there.
    """
    node = view.nodes.get(task.desired.node_id)
    if node is None or node.info is None or not node.info.address:
        raise AgentUnreachable(f"the address of node {task.desired.node_id} is not known")
    channel = dialler.open(node.info.address, server_name(IdentityKind.AGENT, node.id))
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await channel.channel_ready()
        except TimeoutError as error:
            raise AgentUnreachable(
                f"node {node.id} does not answer at {node.info.address}", hint="is its agent running?"
            ) from error
        yield channel
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and find_detail(error) is None:
            raise AgentUnreachable(f"the connection to node {node.id} broke") from error
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise AgentUnreachable(f"the agent of node {node.id} is of a version that cannot do this") from error
        raise from_rpc_error(error) from error
    finally:
        await channel.close()
