"""What committers have done, counted as they do it: one for users' and agents' writes, one for a leader's terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def ignore_transaction(changes: int, took_s: float) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class CommitFigures:
    """`on_transaction` is told of each transaction that was answered: its changes, and seconds since it was sent first.

    `unanswered_total`: tries without an answer in time. `fenced_total`: transactions refused, their term being over.
    """

    on_transaction: Callable[[int, float], None] = ignore_transaction
    transactions_total: int = 0
    changes_total: int = 0
    unanswered_total: int = 0
    fenced_total: int = 0

    def note(self, changes: int, took_s: float) -> None:
        """Count a transaction that was answered."""
        self.transactions_total += 1
        self.changes_total += changes
        self.on_transaction(changes, took_s)
