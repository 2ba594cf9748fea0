"""What the clients of one load have seen: every operation, begun and ended, and how many there were of each kind."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from cloudless.errors import CloudlessError, Conflict, NoSpace, NotFound
from cloudless.testing.history import Action, Operation, Outcome

_EXPECTED = (Conflict, NotFound, NoSpace)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was done. `unsure`: writes given up, which may have happened; `refused`: surely not done."""

    acks: int = 0
    unsure: int = 0
    refused: int = 0
    reads: int = 0
    failed_reads: int = 0

    def since(self, before: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(Counts)))

    def __str__(self) -> str:
        return (
            f"{self.acks} writes acknowledged, {self.unsure} unsure, {self.refused} refused; "
            f"{self.reads} reads answered, {self.failed_reads} failed"
        )


class Notebook:
    """All operations of one load. Only grows."""

    def __init__(self) -> None:
        self._ended: list[Operation] = []
        self._open: dict[int, Operation] = {}
        self._opened = 0
        self._acks = self._unsure = self._refused = self._reads = self._failed_reads = 0
        self.oddities: list[str] = []
        """Answers that no promise allows, whatever the history."""

    def open(self, operation: Operation) -> int:
        """Note that an operation was sent; return its number for `end` and `drop`."""
        self._opened += 1
        self._open[self._opened] = operation
        return self._opened

    def end(self, number: int, **known: object) -> Operation:
        """Note what an operation came to."""
        ended = replace(self._open.pop(number), **known)  # type: ignore[arg-type]
        self.add(ended)
        return ended

    def drop(self, number: int) -> None:
        """Forget a read that was not answered: it proves nothing."""
        del self._open[number]
        self._failed_reads += 1

    def add(self, ended: Operation) -> None:
        self._ended.append(ended)
        if ended.action is Action.READ:
            self._reads += 1
        elif ended.outcome is Outcome.OK:
            self._acks += 1
        elif ended.outcome is Outcome.FAILED:
            self._refused += 1
        else:
            self._unsure += 1

    def note_error(self, asked: object, error: CloudlessError) -> None:
        """Note an error that a well-formed request must never be answered with: internal, or of an inner layer."""
        if not error.retryable and not isinstance(error, _EXPECTED):
            self.oddities.append(f"{asked} was answered with {error.code}: {error.message}")

    @property
    def counts(self) -> Counts:
        return Counts(self._acks, self._unsure, self._refused, self._reads, self._failed_reads)

    def operations(self) -> tuple[Operation, ...]:
        """Return everything that counts: what ended, and writes still under way as ambiguous."""
        under_way = [op for op in self._open.values() if op.action is Action.WRITE]
        return (*self._ended, *(replace(op, outcome=Outcome.AMBIGUOUS) for op in under_way))
