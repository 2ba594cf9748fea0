"""The network between hosts: delays, directions that are cut, calls that are lost, streams that hold or break.

A *call* is one message each way; it may be late, lost in silence, or refused. A *pipe* is one direction of a
connection: in order, nothing lost, and while its way is cut everything waits, as TCP does, until the way heals
or the connection is given up. Reordering is what different delays do to different calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cloudless.testing.sim.loop import SimLoop

RETRANSMIT_MAX_S = 0.6
"""After a way heals: until what waited is sent again."""

KEEPALIVE_S = 15.0
"""A connection whose way is cut for so long is given up by both ends."""


@dataclass(slots=True)
class Weather:
    """How the network is at the moment; probabilities are per message."""

    delay_min_s: float = 0.0002
    delay_max_s: float = 0.003
    slow: float = 0.0
    slow_max_s: float = 1.0
    lost: float = 0.0
    refused: float = 0.0


class Network:
    """Which host reaches which, and how fast. `on_changed` is called after every cut and heal."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self._loop, self._random = loop, random
        self.weather = Weather()
        self.slow_ways_s: dict[tuple[str, str], float] = {}
        """What calls in one direction take more than usual."""
        self._cuts: dict[tuple[str, str], int] = {}
        self._pipes: dict[int, Pipe] = {}
        self._serial = 0
        self.cut_until_s = 0.0
        self.on_changed: Callable[[], None] = lambda: None

    def reaches(self, source: str, target: str) -> bool:
        return (source, target) not in self._cuts

    @property
    def whole(self) -> bool:
        return not self._cuts

    def cut(self, source: str, target: str) -> None:
        """Cut one direction; as often as it was cut it must be healed."""
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1
        self.on_changed()

    def times_cut(self, source: str, target: str) -> int:
        return self._cuts.get((source, target), 0)

    def heal(self, source: str, target: str) -> None:
        left = self._cuts.pop((source, target), 0) - 1
        if left > 0:
            self._cuts[source, target] = left
            return self.on_changed()
        self.cut_until_s = self._loop.now_s
        for pipe in list(self._pipes.values()):
            if (pipe.source, pipe.target) == (source, target):
                pipe.retransmit()
        return self.on_changed()

    def heal_all(self) -> None:
        """Make every way whole; nobody is told before all are."""
        told, self.on_changed = self.on_changed, lambda: None
        for source, target in sorted(self._cuts):
            self._cuts[source, target] = 1
            self.heal(source, target)
        self.on_changed = told

    def delay_s(self) -> float:
        weather = self.weather
        if weather.slow and self._random.random() < weather.slow:
            return self._random.uniform(weather.delay_max_s, weather.slow_max_s)
        return self._random.uniform(weather.delay_min_s, weather.delay_max_s)

    def send(self, source: str, target: str, arrive: Callable[..., None], *args: Any) -> bool:
        """Let one message of a call travel; return whether it will arrive."""
        if not self.reaches(source, target) or (self.weather.lost and self._random.random() < self.weather.lost):
            return False
        arrives_s = self._loop.now_s + self.delay_s() + self.slow_ways_s.get((source, target), 0.0)
        self._loop.world_at(arrives_s, self._arrive, source, target, arrive, args)
        return True

    def refuses(self) -> bool:
        """Return whether the next call is refused before it does anything."""
        return bool(self.weather.refused) and self._random.random() < self.weather.refused

    def _arrive(self, source: str, target: str, arrive: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.reaches(source, target):
            arrive(*args)

    def open_pipe(self, source: str, target: str, arrive: Callable[[Any], None]) -> Pipe:
        self._serial += 1
        pipe = Pipe(self, self._loop, self._serial, source, target, arrive)
        self._pipes[self._serial] = pipe
        return pipe

    def forget(self, serial: int) -> None:
        self._pipes.pop(serial, None)

    def retransmit_s(self) -> float:
        return self._random.uniform(0.0, RETRANSMIT_MAX_S)


class Pipe:
    """One direction of a connection. `send` never fails; what is sent arrives in order, or the connection ends."""

    def __init__(
        self, network: Network, loop: SimLoop, serial: int, source: str, target: str, arrive: Callable[[Any], None]
    ) -> None:
        self._network, self._loop, self._serial = network, loop, serial
        self.source, self.target = source, target
        self._deliver = arrive
        self._queue: deque[Any] = deque()
        self._stuck = 0
        self._last_s = 0.0
        self._closed = False
        self.lag_s = 0.0
        self.on_given_up: Callable[[], None] = lambda: None

    def send(self, item: Any) -> None:
        if self._closed:
            return
        self._queue.append(item)
        self._schedule()

    def _schedule(self) -> None:
        """Let whatever is first in the queue then arrive after all that was scheduled before it."""
        self._last_s = max(self._last_s + 1e-9, self._loop.now_s + self._network.delay_s() + self.lag_s)
        self._loop.world_at(self._last_s, self._arrive)

    def retransmit(self) -> None:
        """The way has healed: what waited travels anew, in order."""
        stuck, self._stuck = self._stuck, 0
        if stuck:
            self._last_s = max(self._last_s, self._loop.now_s + self._network.retransmit_s())
        for _ in range(stuck):
            self._schedule()

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
        self._network.forget(self._serial)

    def _arrive(self) -> None:
        if self._closed:
            return
        if self._network.reaches(self.source, self.target):
            self._deliver(self._queue.popleft())
            return
        if not self._stuck:
            self._loop.world_at(self._loop.now_s + KEEPALIVE_S, self._give_up)
        self._stuck += 1

    def _give_up(self) -> None:
        if self._stuck and not self._closed:
            self.on_given_up()
