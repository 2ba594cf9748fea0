"""What must hold in every run, one idea a class; each is told what happens and raises Violation."""

from __future__ import annotations

from cloudless.testing.sim.checkers.checker import Checker, Violation
from cloudless.testing.sim.checkers.leading import Barrier, LeadersWrite, OneScope, SureLeader, TermsForward
from cloudless.testing.sim.checkers.nodes import HealthyNodesStay
from cloudless.testing.sim.checkers.requests import AcknowledgedSurvive, AnsweredInTime, OneEffect, ReadsFresh
from cloudless.testing.sim.checkers.revisions import Forward, NeverServedBack, SameDigest
from cloudless.testing.sim.checkers.tasks import (
    FloorKept,
    HealthyTasksStay,
    JournalFirst,
    ReportsDurable,
    Reservations,
    SlotsFilledOnce,
    StartedOnce,
    StatesForward,
)

ALL: tuple[type[Checker], ...] = (
    LeadersWrite,
    TermsForward,
    Barrier,
    OneScope,
    SureLeader,
    Forward,
    NeverServedBack,
    SameDigest,
    StartedOnce,
    JournalFirst,
    ReportsDurable,
    StatesForward,
    Reservations,
    SlotsFilledOnce,
    HealthyTasksStay,
    FloorKept,
    HealthyNodesStay,
    OneEffect,
    AcknowledgedSurvive,
    ReadsFresh,
    AnsweredInTime,
)

__all__ = ["ALL", "Checker", "Violation"]
