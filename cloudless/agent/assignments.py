"""Judge what a coordinator assigns before any of it is followed.

An agent must never be led back: not by a coordinator that lags behind what the agent was shown before, not by
one of an ended term, not by another cluster's. Nor may it follow changes to a list it does not have. `Gate`
holds the newest cluster, term and revision seen, on disk before a message is followed: a crash in between
costs nothing, because each session begins with a complete list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from loguru import logger

from cloudless.agent.journal import Head, Journal
from cloudless.core.autonomy import LastWord
from cloudless.core.discovery.learned import Known
from cloudless.core.model import TaskDesired
from cloudless.rpc.codec import Malformed, from_message
from cloudless.rpc.v1.agent_pb2 import Assignments


class Refused(Exception):
    """The message, and with it this session's list, cannot be followed. `kind` is the metric's label."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class TaskFollower(Protocol):
    """What carries out what was found good; see `tasks.TaskRunner`."""

    def assign(self, desired: TaskDesired) -> None:
        """Take the coordinator's word about one task."""
        ...

    def unlist(self, task_id: str) -> None:
        """The coordinator no longer lists the task: end it if need be, then forget it."""
        ...

    def unlist_others(self, listed: set[str]) -> None:
        """End and forget every task that a complete list does not name."""
        ...


@dataclass(slots=True)
class Cursor:
    """Where a session is in its list: the sequence expected next; 0: a complete list."""

    next_sequence: int = 0


class Gate:
    """What the agent has seen; `head` is the journal's."""

    def __init__(self, head: Head, journal: Journal, node_id: str) -> None:
        self.head = head
        self._journal = journal
        self._node_id = node_id

    def check_cluster(self, cluster_id: str) -> None:
        """Raise Refused if a coordinator belongs to another cluster than this agent."""
        if self.head.cluster_id and cluster_id != self.head.cluster_id:
            raise Refused(
                "foreign-cluster", f"belongs to cluster {cluster_id or '?'}, this agent to {self.head.cluster_id}"
            )

    def check(self, message: Assignments, cursor: Cursor) -> None:
        """Move `cursor` past the message. Raises Refused if it is stale or not the next one."""
        if 0 < message.term < self.head.term_seen:  # 0: nobody leads yet, after a start of all coordinators
            raise Refused("stale-term", f"assigns under term {message.term}, seen {self.head.term_seen}")
        if message.revision < self.head.revision_seen:
            raise Refused("stale-revision", f"assigns at revision {message.revision}, seen {self.head.revision_seen}")
        if message.kind == Assignments.COMPLETE:
            cursor.next_sequence = message.sequence + 1
        elif message.kind != Assignments.INCREMENTAL:
            raise Refused("unknown-kind", f"assigns in a way this version does not know ({message.kind})")
        elif message.sequence != cursor.next_sequence or cursor.next_sequence == 0:
            raise Refused("sequence-gap", f"sent message {message.sequence}, expected {cursor.next_sequence}")
        else:
            cursor.next_sequence += 1

    async def follow(self, message: Assignments, cursor: Cursor, runner: TaskFollower) -> None:
        """Check the message, remember its term and revision, and hand its tasks over. Raises Refused."""
        self.check(message, cursor)
        await self._remember(
            replace(self.head, term_seen=max(message.term, self.head.term_seen), revision_seen=message.revision)
        )
        listed = set()
        for item in message.tasks:
            listed.add(item.id)
            desired = self._read(item)
            if desired is not None:
                runner.assign(desired)
        for task_id in message.removed_task_ids:
            runner.unlist(task_id)
        if message.kind == Assignments.COMPLETE:
            runner.unlist_others(listed | set(message.unreadable_task_ids))

    async def join_cluster(self, cluster_id: str) -> None:
        await self._remember(replace(self.head, cluster_id=cluster_id))

    async def note(self, word: LastWord) -> None:
        await self._remember(replace(self.head, last_word=word))

    async def learn_coordinators(self, known: tuple[Known, ...]) -> None:
        await self._remember(replace(self.head, coordinators=known))

    def _read(self, item: object) -> TaskDesired | None:
        """Return the task, or None if it is unreadable or not ours: then what runs of it is left alone."""
        try:
            desired = from_message(item, TaskDesired)  # type: ignore[arg-type]
        except Malformed as error:
            logger.error("a task assigned to us is unreadable and left as it is: {}", error)
            return None
        if desired.node_id != self._node_id or not desired.id:
            logger.error("task {task} is assigned to {}, not to us", desired.node_id, task=desired.id)
            return None
        return desired

    async def _remember(self, head: Head) -> None:
        if head == self.head:
            return
        # In memory first: it must hold even if the disk does not take it.
        self.head = head
        try:
            await self._journal.save_head(head)
        except OSError as error:
            logger.warning("what the agent has seen cannot be written down: {}", error.strerror or error)
