"""The history checker: accepts whatever a correct store may answer, finds and names each kind of lie."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cloudless.testing.history import (
    Action,
    Consistency,
    Fault,
    History,
    LeaderWrite,
    LogEvent,
    Operation,
    Outcome,
    Violation,
    check_history,
)
from tests.unit.simulated_history import LIES, SimulatedStore

SEEDS = st.integers(0, 2**32)


def write(value: str | None, call_s: float, return_s: float | None, revision: int = 0, **more: object) -> Operation:
    outcome = Outcome.OK if revision else Outcome.AMBIGUOUS
    given = {"client": "w", "name": "x", "outcome": outcome, "request_id": f"r-{value}", **more}
    return Operation(
        action=Action.WRITE,
        value=value,
        call_s=call_s,
        return_s=return_s,
        revision=revision,
        **given,  # type: ignore[arg-type]
    )


def read(value: str | None, call_s: float, return_s: float, revision: int, **more: object) -> Operation:
    given = {"client": "r", "name": "x", **more}
    return Operation(
        action=Action.READ,
        value=value,
        call_s=call_s,
        return_s=return_s,
        revision=revision,
        **given,  # type: ignore[arg-type]
    )


def judge(*operations: Operation, log: tuple[LogEvent, ...] = (), **more: object) -> tuple[Violation, ...]:
    return check_history(History(operations=operations, log=log, last_revision=99, **more))  # type: ignore[arg-type]


def faults(found: tuple[Violation, ...]) -> set[Fault]:
    return {violation.fault for violation in found}


A5, B7 = LogEvent(5, "x", "a"), LogEvent(7, "x", "b")
WRITES = (write("a", 1.0, 2.0, 5), write("b", 3.0, 4.0, 7))


@given(SEEDS, st.integers(1, 300), st.integers(1, 8))
def test_whatever_a_correct_store_answers_is_accepted(seed: int, steps: int, clients: int) -> None:
    assert check_history(SimulatedStore(seed).run(steps, clients)) == ()


@pytest.mark.parametrize("lie", LIES)
@settings(max_examples=30)
@given(seed=SEEDS)
def test_each_lie_is_found_and_named(lie: str, seed: int) -> None:
    plant, fault = LIES[lie]
    planted = plant(SimulatedStore(seed).run(200), random.Random(seed))
    assume(planted is not None)
    assert planted is not None
    assert fault in faults(check_history(planted))


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_can_be_told_in_most_histories(lie: str) -> None:
    plant, _ = LIES[lie]
    told = [plant(SimulatedStore(seed).run(200), random.Random(seed)) is not None for seed in range(20)]
    assert sum(told) >= 10


def test_reads_between_two_writes_may_see_either() -> None:
    log = (A5, B7)
    assert judge(*WRITES, read("a", 3.1, 3.9, 6), read("b", 3.1, 3.9, 7), log=log) == ()


def test_an_ambiguous_write_may_happen_later_or_never() -> None:
    unsure = write("c", 1.0, None)
    assert judge(*WRITES, unsure, log=(A5, B7)) == ()
    assert judge(*WRITES, unsure, log=(A5, B7, LogEvent(90, "x", "c"))) == ()


def test_an_ambiguous_write_must_not_happen_before_it_was_sent() -> None:
    unsure = write("c", 4.5, None)
    found = judge(*WRITES, unsure, log=(A5, LogEvent(6, "x", "c"), B7))
    assert faults(found) == {Fault.REAL_TIME_ORDER}
    assert found[0].revisions == (7, 6)


def test_a_lost_write_names_what_is_there_instead() -> None:
    (found,) = judge(*WRITES, log=(B7,))
    assert found.fault is Fault.LOST_WRITE
    assert "x = a" in found.explanation
    assert "revision 5" in found.explanation
    assert "does not exist" in found.explanation


def test_a_write_past_the_end_of_the_log_is_unproved() -> None:
    assert faults(judge(write("a", 1.0, 2.0, 200), log=())) == {Fault.WRONG_REVISION}


def test_a_read_of_the_old_value_after_the_new_one_was_acknowledged_is_stale() -> None:
    assert faults(judge(*WRITES, read("a", 5.0, 6.0, 6), log=(A5, B7))) == {Fault.STALE_READ}
    assert faults(judge(*WRITES, read("a", 5.0, 6.0, 8), log=(A5, B7))) == {Fault.STALE_READ}


def test_a_read_that_found_nothing_is_judged_without_a_revision() -> None:
    log = (A5, LogEvent(7, "x", None))
    writes = (write("a", 1.0, 2.0, 5), write(None, 3.0, 4.0, 7))
    assert judge(*writes, read(None, 0.0, 0.5, 0), read(None, 3.5, 3.8, 0), read(None, 5.0, 6.0, 0), log=log) == ()
    assert faults(judge(WRITES[0], read(None, 5.0, 6.0, 0), log=(A5,))) == {Fault.STALE_READ}


def test_a_declared_age_allows_as_much_and_no_more() -> None:
    old = read("a", 5.0, 5.1, 6, consistency=Consistency.STALE, staleness_s=1.5)
    assert judge(*WRITES, old, log=(A5, B7)) == ()
    assert faults(judge(*WRITES, replace(old, staleness_s=0.5), log=(A5, B7))) == {Fault.STALER_THAN_DECLARED}


def test_a_deletion_nobody_asked_for_loses_the_write() -> None:
    assert faults(judge(WRITES[0], log=(A5, LogEvent(6, "x", None)))) == {Fault.LOST_WRITE}


def test_a_deletion_of_what_is_gone_already_is_no_effect() -> None:
    log = (A5, LogEvent(7, "x", None), LogEvent(9, "x", None))
    asked = write(None, 3.0, 4.0, 7)
    again = write(None, 5.0, 6.0, 9, request_id="again")
    assert judge(WRITES[0], asked, again, log=log) == ()


def test_a_conditional_write_after_a_deletion_is_a_lost_update() -> None:
    late = write("b", 3.0, 4.0, 9, if_revision=5)
    log = (A5, LogEvent(7, "x", None), LogEvent(9, "x", "b"))
    gone = write(None, 2.5, 2.9, 7)
    assert faults(judge(WRITES[0], gone, late, log=log)) == {Fault.LOST_UPDATE}


def test_a_conditional_write_that_comes_back_is_not_also_called_a_lost_update() -> None:
    conditional = write("b", 3.0, 4.0, 7, if_revision=5)
    last = write("c", 5.0, 6.0, 8)
    log = (A5, B7, LogEvent(8, "x", "c"), LogEvent(9, "x", "b"))
    assert faults(judge(WRITES[0], conditional, last, log=log)) == {Fault.RESURRECTED}


def test_the_same_request_answered_twice_alike_is_one_effect() -> None:
    assert judge(*WRITES, replace(WRITES[0], client="other"), log=(A5, B7)) == ()


def test_only_a_deletion_that_changed_something_is_answered_with_one_revision() -> None:
    """Each try of another one, which found the object gone, names the state it found that in."""
    log = (A5, B7, LogEvent(8, "x", None, "r-first"))
    gone = replace(write(None, 5.0, 5.5, 8), request_id="r-second")
    again = replace(gone, client="other", return_s=5.6, revision=9)
    assert judge(*WRITES, gone, again, log=log) == ()
    did = [replace(one, request_id="r-first") for one in (gone, again)]
    assert Fault.DOUBLE_EFFECT in faults(judge(*WRITES, *did, log=log))


def test_a_request_refused_once_and_done_on_another_try_was_not_refused() -> None:
    refused = replace(WRITES[0], outcome=Outcome.FAILED, revision=0, call_s=0.5)
    assert judge(refused, *WRITES, log=(A5, B7)) == ()
    assert faults(judge(refused, WRITES[1], log=(A5, B7))) == {Fault.RESURRECTED}


def test_a_request_that_writes_two_objects_at_two_revisions_has_two_effects() -> None:
    log = (LogEvent(5, "x", "a", "r-a"), LogEvent(6, "y", "a", "r-a"))
    found = judge(WRITES[0], read(None, 0.0, 0.1, 0, name="y"), log=log)
    assert Fault.DOUBLE_EFFECT in faults(found)


def test_equal_terms_and_newer_ones_are_in_order() -> None:
    terms = (LeaderWrite(3, 1), LeaderWrite(4, 1), LeaderWrite(5, 9))
    assert judge(leader_writes=terms) == ()
    assert faults(judge(leader_writes=(*terms, LeaderWrite(6, 1, "tasks/t")))) == {Fault.OLD_TERM}


def test_a_value_of_two_requests_proves_nothing_and_is_refused() -> None:
    with pytest.raises(ValueError, match="two requests wrote the same value"):
        judge(WRITES[0], replace(WRITES[0], request_id="other"), log=(A5,))


def test_a_log_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        judge(*WRITES, log=(B7, A5))


def test_objects_nobody_operated_on_are_not_judged() -> None:
    assert judge(*WRITES, log=(A5, LogEvent(6, "stranger", "s"), B7)) == ()


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_hundred_thousand_operations_take_seconds(count: int) -> None:
    history = SimulatedStore(1).run(2 * count, clients=20)
    assert len(history.operations) >= count - 20
    started_s = time.process_time()
    assert check_history(history) == ()
    assert time.process_time() - started_s < 1.0 + count / 10_000
