"""What a checker of the simulation sees, without a simulation: a world made by hand, and what happens in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cloudless.core import keys
from cloudless.ports import Event, KeyValue
from cloudless.testing.builders import TestCluster
from cloudless.testing.sim.checkers.checker import Checker, Violation
from cloudless.testing.sim.happenings import Stored


class Sight:
    """What a checker sees of a world, and the store's writes as it is told them."""

    def __init__(self, checker: type[Checker]) -> None:
        self.cluster = TestCluster()
        self.loop = SimpleNamespace(now_s=1_000.0)
        self.options = SimpleNamespace(forgetful=False, drift=0.0)
        self.coordinators: dict[str, object] = {}
        self.checker = checker(self)
        self._told = 0

    @property
    def truth(self):
        return self.cluster.machine

    def tell(self, happening: object) -> None:
        listener = self.checker.listener(type(happening))
        assert listener is not None, f"{type(self.checker).__name__} does not listen to {type(happening).__name__}"
        listener(happening)

    def refuses(self, happening: object) -> None:
        with pytest.raises(Violation) as raised:
            self.tell(happening)
        assert raised.value.checker == type(self.checker).__name__

    def stored(self, *events: Event, by=None, txn=None, leader=None, lease_id=0, before=None) -> Stored:
        """Return the store's newest write, with what it changed if `before` is given as records by key."""
        transitions = tuple(
            SimpleNamespace(key=key, kind=parsed.kind, before=old, after=self._record(key))
            for key, old in (before or {}).items()
            if (parsed := keys.parse(key)) is not None
        )
        return Stored(self.truth.revision, by, events, txn, lease_id, transitions, leader)

    def _record(self, key: str):
        entry = self.truth._entries.get(key)
        return getattr(entry, "record", None)


def process(name: str) -> SimpleNamespace:
    class Named(SimpleNamespace):
        def __hash__(self) -> int:  # type: ignore[override]
            return id(self)

    return Named(name=name, alive=True, running=True)


def life(name: str) -> SimpleNamespace:
    return SimpleNamespace(id=name, process=process(name))


def put(key: str, revision: int = 5) -> Event:
    return Event(KeyValue(key, b"", revision, revision))
