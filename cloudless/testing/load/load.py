"""Raise the load, watch over it, and judge it: what tests under faults and the soak share."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from cloudless.adapters.etcd.store import EtcdStore
from cloudless.adapters.grpc.channel import INSECURE, Dialler
from cloudless.cli.failover import Failure
from cloudless.cli.methods import DELETE_WORKLOAD
from cloudless.errors import NotFound
from cloudless.rpc.v1.common_pb2 import WriteOptions
from cloudless.rpc.v1.workload_pb2 import DeleteWorkloadRequest
from cloudless.testing.history import History, Operation, Violation, check_history
from cloudless.testing.load.door import Door
from cloudless.testing.load.notebook import Counts, Notebook
from cloudless.testing.load.reader import Reader
from cloudless.testing.load.witness import Story, Witness
from cloudless.testing.load.writer import Writer

_POLL_S = 0.05
_TIDY_S = 10.0
_SHOWN_MAX = 10
"""Violations written out in full; one fault can break thousands of answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """`clients`: half of them write, half read. Each client makes a request, then rests for 0 to 2 `pause_s`.

    `objects`: how many the clients share: few make them race. `patience_s`: after how long a writer gives a request
    up as unsure. `seed` 0: another one each time; it decides what is asked for, not when it is answered.
    """

    clients: int = 8
    objects: int = 6
    pause_s: float = 0.05
    patience_s: float = 15.0
    namespace: str = "load"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Entrance:
    """How the load gets in: to coordinators, and to an etcd member at an address. Plain unless told otherwise."""

    dialler: Dialler = INSECURE
    open_store: Callable[[str], EtcdStore] = EtcdStore


class NotReached(AssertionError):
    """The load was not there: whatever was to be proved under it is not."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the load came to. `problems`: what is wrong apart from the history, gaps in the witness's view included."""

    counts: Counts
    violations: tuple[Violation, ...]
    problems: tuple[str, ...]
    seed: int

    @property
    def sound(self) -> bool:
        return not self.violations and not self.problems

    def findings(self) -> tuple[str, ...]:
        """Return everything that is wrong, in words; of very many violations the first ones."""
        rest = len(self.violations) - _SHOWN_MAX
        more = [f"and {rest} more violations"] if rest > 0 else []
        return (*self.problems, *map(str, self.violations[:_SHOWN_MAX]), *more)

    def require_sound(self) -> None:
        """Raise AssertionError with all findings if anything is wrong."""
        assert self.sound, f"load with seed {self.seed}, {self.counts}:\n" + "\n".join(self.findings())

    def __str__(self) -> str:
        return f"{self.counts}; " + ("sound" if self.sound else "; ".join(self.findings()))


class Load:
    """A load that is under way; made by `recorded_load`."""

    def __init__(
        self, addresses: Sequence[str], etcd_addresses: Sequence[str], settings: LoadSettings, entrance: Entrance
    ) -> None:
        run = uuid.uuid4().hex[:8]
        self.seed = settings.seed or uuid.uuid4().int % 2**32
        self._settings = settings
        self._names = tuple(f"object-{run}-{number}" for number in range(settings.objects))
        self._doors = [Door(address, entrance.dialler) for address in addresses]
        self._notebook = Notebook()
        self._witness = Witness([entrance.open_store(address) for address in etcd_addresses], settings.namespace, run)
        self._loops = [self._build_client(number, run) for number in range(settings.clients)]
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()
        self._report: LoadReport | None = None

    def _build_client(self, number: int, run: str) -> Callable[[], Awaitable[None]]:
        objects, seed = (self._settings.namespace, self._names), self.seed + number
        if number % 2:
            return Reader(f"{run}-reader-{number}", self._doors, self._notebook, objects, seed).read
        writer = Writer(f"{run}-writer-{number}", self._doors, self._notebook, objects, seed)
        writer.patience_s = self._settings.patience_s
        return writer.write

    @property
    def counts(self) -> Counts:
        return self._notebook.counts

    async def require(
        self, *, acks_min: int = 0, reads_min: int = 0, timeout_s: float = 20.0, since: Counts | None = None
    ) -> Counts:
        """Wait until at least as much was done (after `since`) and return the counts. Raises NotReached."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            done = self.counts.since(since or Counts())
            if done.acks >= acks_min and done.reads >= reads_min:
                return self.counts
            for task in self._tasks:
                if task.done():
                    await task
            if time.monotonic() > deadline_s:
                raise NotReached(f"wanted {acks_min} writes and {reads_min} reads within {timeout_s:g} s, had {done}")
            await asyncio.sleep(_POLL_S)

    async def check(self, timeout_s: float = 30.0) -> LoadReport:
        """End the load (requests under way are finished) and judge all of it; asked again, return the same report.

        Raises StoreTimeout if no etcd member can be read: without the store's own history there is no judgement.
        """
        if self._report is None:
            self._ending.set()
            await asyncio.gather(*self._tasks)
            await self._witness.catch_up(timeout_s)
            operations, story = self._notebook.operations(), self._witness.story()
            violations = await asyncio.to_thread(check_history, _to_history(operations, story))
            problems = (*story.gaps, *self._notebook.oddities)
            self._report = LoadReport(self.counts, violations, problems, self.seed)
        return self._report

    async def start(self) -> None:
        await self._witness.start()
        self._tasks = [asyncio.create_task(self._run(step, i)) for i, step in enumerate(self._loops)]

    async def close(self) -> None:
        """End the load and delete its objects, as far as the cluster lets us."""
        self._ending.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_TIDY_S):
                await asyncio.gather(*(self._delete(name) for name in self._names))
        except TimeoutError:
            pass
        finally:
            await self._witness.stop()
            for door in self._doors:
                await door.close()

    async def _run(self, step: Callable[[], Awaitable[None]], number: int) -> None:
        pauses = random.Random(self.seed - number)
        while not self._ending.is_set():
            await step()
            await asyncio.sleep(pauses.uniform(0.0, 2 * self._settings.pause_s))

    async def _delete(self, name: str) -> None:
        options = WriteOptions(request_id=uuid.uuid4().hex)
        request = DeleteWorkloadRequest(options=options, namespace=self._settings.namespace, name=name)
        for door in self._doors * 2:
            answer = await door.ask(DELETE_WORKLOAD, request, 2.0)
            if not isinstance(answer, Failure) or isinstance(answer.error, NotFound):
                return


def _to_history(operations: tuple[Operation, ...], story: Story) -> History:
    """Put the names of requests to the changes they made: each changes one object, once in a revision."""
    names = {op.request_id: op.name for op in operations if op.request_id}
    made = {
        (revision, names[request_id]): request_id
        for revision, request_ids in story.requests.items()
        for request_id in request_ids
        if request_id in names
    }
    log = tuple(replace(event, request_id=made.get((event.revision, event.name), "")) for event in story.log)
    return History(operations=operations, log=log, last_revision=story.last_revision, leader_writes=story.leader_writes)


@asynccontextmanager
async def recorded_load(
    addresses: Sequence[str],
    etcd_addresses: Sequence[str],
    settings: LoadSettings | None = None,
    entrance: Entrance | None = None,
    **changed: object,
) -> AsyncIterator[Load]:
    """Load a cluster until the block is left. `addresses`: coordinators' API; `etcd_addresses`: members' client URLs
    as host:port. Single settings may be given by name. Raises StoreTimeout if the store cannot be read."""
    wanted = replace(settings or LoadSettings(), **changed)  # type: ignore[arg-type]
    load = Load(addresses, etcd_addresses, wanted, entrance or Entrance())
    try:
        await load.start()
        yield load
    finally:
        await load.close()
