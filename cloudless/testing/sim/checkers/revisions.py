"""What was seen is never unseen, and everybody who is at one revision holds the same."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from cloudless.coordinator.replica import _decode
from cloudless.core import keys
from cloudless.core.state import StateMachine
from cloudless.testing.sim.checkers.checker import Checker
from cloudless.testing.sim.happenings import Followed, RefusedAssignments, SawRevision, Stored
from cloudless.testing.sim.loop import Process
from cloudless.testing.sim.store import run_now


class Forward(Checker):
    """No coordinator's state and no agent is ever led back (O3)."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._seen: dict[Process, int] = {}
        self._followed: dict[str, tuple[int, int]] = {}

    def on_SawRevision(self, saw: SawRevision) -> None:
        before = self._seen.get(saw.life.process, 0)
        if saw.revision < before:
            raise self.refuse(f"{saw.life.id} went from r{before} back to r{saw.revision}")
        self._seen[saw.life.process] = saw.revision

    def on_Followed(self, followed: Followed) -> None:
        term, revision = self._followed.get(followed.node_id, (0, 0))
        if followed.revision < revision:
            raise self.refuse(f"{followed.node_id} followed r{followed.revision} after r{revision}")
        if 0 < followed.term < term:
            raise self.refuse(f"{followed.node_id} followed term {followed.term} after term {term}")
        self._followed[followed.node_id] = (max(term, followed.term), followed.revision)


class NeverServedBack(Checker):
    """No coordinator sends an agent what it must refuse: an older state, an ended term, a gap (O3, its other half)."""

    def on_RefusedAssignments(self, refused: RefusedAssignments) -> None:
        if not self.world.options.forgetful:
            raise self.refuse(f"{refused.node_id} was sent what it must refuse: {refused.kind}")


class SameDigest(Checker):
    """At one revision every copy has the digest of the store's own state, and that is a fresh read's (O4)."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._revisions = [0, world.truth.revision]  # there may be something to begin with
        self._digests = [0, world.truth.digest]

    def on_Stored(self, stored: Stored) -> None:
        self._revisions.append(stored.revision)
        self._digests.append(self.world.truth.digest)

    def on_SawRevision(self, saw: SawRevision) -> None:
        expected = self._digests[bisect_right(self._revisions, saw.revision) - 1]
        if saw.digest != expected:
            raise self.refuse(f"{saw.life.id} holds another state than the store at r{saw.revision}")

    def finish(self) -> None:
        memory = self.world.host.memory
        page = run_now(memory.read_page(keys.PREFIX, limit=100_000))
        fresh = StateMachine()
        fresh.reset(page.revision, [_decode(kv) for kv in page.kvs])
        if fresh.digest != self.world.truth.digest:
            raise self.refuse("a fresh read gives another state than the events did")
