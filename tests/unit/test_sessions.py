"""A coordinator's sessions with agents: what is left of one when it ends, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.sessions import Sessions, SessionSettings
from cloudless.core import keys
from cloudless.core.model import ClusterRecord, LeaderRecord
from cloudless.errors import FormationRefused, Unavailable
from cloudless.ports import Delete, Txn
from cloudless.rpc.codec import to_message
from cloudless.rpc.v1 import agent_pb2, objects_pb2
from cloudless.testing.builders import build_node
from cloudless.testing.faulty_store import NONE, Fault, always
from cloudless.testing.virtual_time import eventually, running, virtually
from tests.unit.leading import CLOCK, Cluster, leading, report


class Agent:
    """The agent's end of one session, without a network."""

    def __init__(self, sessions: Sessions, node_id: str = "n1") -> None:
        self._sessions = sessions
        self._said: asyncio.Queue[agent_pb2.AgentMessage] = asyncio.Queue()
        self.heard: list[str | None] = []
        self.terms: list[int] = []
        self.periods_s: list[float] = []
        self.cut_off: list[bool] = []
        info = to_message(build_node(node_id), objects_pb2.NodeInfo)
        hello = agent_pb2.AgentHello(info=info, role=agent_pb2.SESSION_ROLE_PRIMARY)
        self.say(agent_pb2.AgentMessage(hello=hello))

    def say(self, message: agent_pb2.AgentMessage) -> None:
        self._said.put_nowait(message)

    def said_first(self, message: agent_pb2.AgentMessage) -> None:
        """Say this in place of the usual hello."""
        self._said = asyncio.Queue()
        self.say(message)

    async def run(self) -> None:
        async for message in self._sessions.Session(self._words(), None):
            self.heard.append(message.WhichOneof("body"))
            if message.WhichOneof("body") == "heartbeat_ack":
                self.cut_off.append(message.heartbeat_ack.cut_off)
            if message.WhichOneof("body") == "welcome":
                self.periods_s.append(message.welcome.heartbeat_period_s)
            if message.heartbeat_ack.heartbeat_period_s:
                self.periods_s.append(message.heartbeat_ack.heartbeat_period_s)
            if message.WhichOneof("body") == "assignments":
                self.terms.append(message.assignments.term)

    async def _words(self) -> AsyncIterator[agent_pb2.AgentMessage]:
        while True:
            yield await self._said.get()


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Cluster, Sessions]]:
    async with leading() as cluster:
        await cluster.put(keys.CLUSTER, ClusterRecord(id="c1"))
        await cluster.add_task("t1", "n1")
        await cluster.replica.linearize(timeout_s=5)
        settings = SessionSettings(coordinator_id="coordinator-1")
        yield cluster, Sessions(cluster.replica, cluster.committer, HeardTable(CLOCK), CLOCK, settings)


@virtually
async def test_a_session_that_is_cancelled_while_it_ends_is_gone_with_its_reports() -> None:
    """An agent that was sent away hangs up at once, which cancels the stream in the middle of its ending."""
    async with serving() as (cluster, sessions):
        agent = Agent(sessions)
        stream = asyncio.create_task(agent.run())
        await eventually(lambda: "assignments" in agent.heard)
        cluster.store.choose = always(Fault(answer_delay_s=3600.0))
        reports = [to_message(report("t1", 1), objects_pb2.TaskObserved)]
        agent.say(agent_pb2.AgentMessage(reports=agent_pb2.TaskReports(reports=reports)))
        await eventually(lambda: report_tasks() == 2)
        sessions.shed_all("this coordinator is stopping")
        while "shed" not in agent.heard:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not stream.done(), "it ends already: this proves nothing"
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
        assert sessions.count == 0
        await eventually(lambda: report_tasks() == 0)


@virtually
async def test_agents_are_told_that_the_store_is_gone_and_back_and_stay_and_others_are_refused() -> None:
    async with serving() as (cluster, sessions), running(sessions.run()):
        agent = Agent(sessions)
        stream = asyncio.create_task(agent.run())
        await eventually(lambda: "assignments" in agent.heard)
        cluster.store.cut = True
        await eventually(lambda: agent.cut_off == [True])
        with pytest.raises(Unavailable, match="cut off from the store"):
            await Agent(sessions, "n2").run()
        agent.say(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(sequence=1)))
        await eventually(lambda: agent.cut_off == [True, True])
        cluster.store.cut = False
        await eventually(lambda: agent.cut_off == [True, True, False])
        assert not stream.done()
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


@virtually
async def test_assignments_name_no_term_while_nobody_leads_for_an_agent_may_know_a_later_one() -> None:
    async with serving() as (cluster, sessions), running(sessions.run()):
        agent = Agent(sessions)
        stream = asyncio.create_task(agent.run())
        term = await cluster.put(keys.election(1), LeaderRecord(coordinator_id="c1"))
        await cluster.add_task("t2", "n1")
        await eventually(lambda: term in agent.terms)
        await cluster.memory.txn(Txn(then=(Delete(keys.election(1)),)), timeout_s=1)
        await cluster.add_task("t3", "n1")
        await eventually(lambda: agent.terms[-1] == 0)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


@virtually
async def test_an_agent_of_another_cluster_is_refused_at_once_though_it_has_seen_a_later_revision() -> None:
    async with serving() as (_, sessions):
        agent = Agent(sessions)
        hello = agent_pb2.AgentHello(
            info=to_message(build_node("n1"), objects_pb2.NodeInfo), cluster_id="other", revision_seen=1_000_000
        )
        agent.said_first(agent_pb2.AgentMessage(hello=hello))
        async with asyncio.timeout(0.1):
            with pytest.raises(FormationRefused, match="belongs to cluster other, this is c1"):
                await agent.run()


def report_tasks() -> int:
    return sum(task.get_name().startswith(("report-", "session-read-")) for task in asyncio.all_tasks())


@virtually
async def test_facts_of_a_node_that_change_during_a_session_are_written_and_only_its_own() -> None:
    async with serving() as (cluster, sessions):
        agent = Agent(sessions)
        stream = asyncio.create_task(agent.run())
        await eventually(lambda: "assignments" in agent.heard)
        changed = replace(build_node("n1"), executors=("process",))
        agent.say(agent_pb2.AgentMessage(info=to_message(changed, objects_pb2.NodeInfo)))

        def known(node_id: str) -> tuple[str, ...]:
            node = cluster.replica.machine.nodes.get(node_id)
            return node.info.executors if node and node.info else ()

        await eventually(lambda: known("n1") == ("process",))
        assert not stream.done()
        agent.say(agent_pb2.AgentMessage(info=to_message(build_node("n2"), objects_pb2.NodeInfo)))
        await eventually(lambda: "shed" in agent.heard)
        assert known("n2") == ()
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


@virtually
async def test_agents_are_told_once_when_the_cluster_has_become_so_large_that_they_are_to_beat_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloudless.core.orchestration.heartbeats.BEATS_PER_S_MAX", 1)
    async with serving() as (cluster, sessions):
        agent = Agent(sessions)
        stream = asyncio.create_task(agent.run())
        await eventually(lambda: agent.periods_s == [1.0])
        for number in range(4):
            await cluster.add_node(f"more-{number}")
        await eventually(lambda: len(cluster.replica.machine.nodes) == 5)
        for sequence in range(1, 4):
            agent.say(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(sequence=sequence)))
            await eventually(lambda n=sequence: agent.heard.count("heartbeat_ack") == n)  # type: ignore[misc]
        assert agent.periods_s == [1.0, 5.0]
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


@virtually
async def test_of_a_crowd_only_so_many_are_let_in_at_once_and_the_rest_is_sent_away() -> None:
    async with serving() as (cluster, _):
        settings = SessionSettings(coordinator_id="coordinator-1", admissions_max=3)
        sessions = Sessions(cluster.replica, cluster.committer, HeardTable(CLOCK), CLOCK, settings)
        cluster.store.choose = always(Fault(answer_delay_s=2.0))
        agents = [Agent(sessions, f"crowd-{number}") for number in range(10)]
        streams = [asyncio.create_task(agent.run()) for agent in agents]
        await asyncio.sleep(0.1)
        refused = [stream.exception() for stream in streams if stream.done()]
        assert len(refused) == 7
        assert all(isinstance(error, Unavailable) and "being let in already" in str(error) for error in refused)
        cluster.store.choose = always(NONE)
        await eventually(lambda: sessions.count == 3, within_s=10)
        late = Agent(sessions, "late")
        streams.append(asyncio.create_task(late.run()))
        await eventually(lambda: sessions.count == 4)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
