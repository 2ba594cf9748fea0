"""What must hold in every run, one idea a class; each is told what happens and raises Violation."""

from __future__ import annotations

from cloudless.testing.sim.checkers.checker import Checker, Violation
from cloudless.testing.sim.checkers.leading import Barrier, LeadersWrite, OneScope, SureLeader, TermsForward
from cloudless.testing.sim.checkers.members import (
    DeadLongEnough,
    OneLearner,
    PromotedInStep,
    QuorumKept,
    RemovedIsOut,
)
from cloudless.testing.sim.checkers.moves import MovesKept
from cloudless.testing.sim.checkers.nodes import HealthyNodesStay
from cloudless.testing.sim.checkers.placement import PlacementKept
from cloudless.testing.sim.checkers.requests import AcknowledgedSurvive, AnsweredInTime, OneEffect, ReadsFresh
from cloudless.testing.sim.checkers.revisions import Forward, NeverServedBack, SameDigest
from cloudless.testing.sim.checkers.rollouts import DeadlineKept, PauseKept, RolledBackOnce, SurgeKept
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
from cloudless.testing.sim.checkers.trust import LockedOut, NeverRunsOut, OneIssuer, TokenUses, TrustedToTheEnd
from cloudless.testing.sim.options import Options

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
    PlacementKept,
    SlotsFilledOnce,
    HealthyTasksStay,
    FloorKept,
    MovesKept,
    HealthyNodesStay,
    OneEffect,
    AcknowledgedSurvive,
    ReadsFresh,
    AnsweredInTime,
)
OF_MEMBERS: tuple[type[Checker], ...] = (QuorumKept, OneLearner, PromotedInStep, DeadLongEnough, RemovedIsOut)
OF_TRUST: tuple[type[Checker], ...] = (TokenUses, LockedOut, OneIssuer, TrustedToTheEnd, NeverRunsOut)
OF_ROLLOUTS: tuple[type[Checker], ...] = (SurgeKept, PauseKept, RolledBackOnce, DeadlineKept)
"""What is judged only where members come and go, where there are certificates, and where templates change."""


def checkers_for(options: Options) -> tuple[type[Checker], ...]:
    """Return what watches a run under these options."""
    return (
        *ALL,
        *(OF_MEMBERS if options.membership is not None else ()),
        *(OF_ROLLOUTS if options.rollouts is not None else ()),
        *(OF_TRUST if options.certificates is not None else ()),
    )


__all__ = ["ALL", "OF_MEMBERS", "OF_ROLLOUTS", "OF_TRUST", "Checker", "Violation", "checkers_for"]
