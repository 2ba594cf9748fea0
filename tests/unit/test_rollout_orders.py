"""What a person may order of a rollout, and what is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudless.core import keys
from cloudless.core.model import RolloutPhase, RolloutStrategy
from cloudless.core.orchestration.orders import pause, promote, resume, undo
from cloudless.core.plan import Change, PutRecord
from cloudless.errors import Conflict, NotFound
from tests.unit.rollouts import REF, Stage


def give(stage: Stage, order: Callable[..., Any], *more: Any) -> bool:
    """Carry an order out; return whether it changed anything."""
    changed = order(stage.cluster.machine, stage.record, *more)
    if changed is None:
        return False
    puts = (PutRecord(keys.workload(*REF), changed.record), *changed.puts)
    assert not stage.cluster.commit([Change(puts=puts, deletes=changed.deletes)])
    return True


def test_pausing_and_resuming_twice_changes_nothing() -> None:
    stage = Stage.of(3)
    stage.change("v2")
    assert [give(stage, pause), give(stage, pause)] == [True, False]
    stage.go_on()
    assert stage.notes.phase is RolloutPhase.PAUSED
    assert [give(stage, resume), give(stage, resume)] == [True, False]
    stage.go_on()
    assert stage.versions() == {"v2": 3}


@pytest.mark.parametrize("order", [pause, promote])
def test_without_a_rollout_there_is_nothing_to_pause_or_promote(order: Callable[..., Any]) -> None:
    stage = Stage.of(3)
    with pytest.raises(Conflict, match="no rollout of default/web is under way"):
        give(stage, order)
    stage.change("v2")
    stage.go_on()
    with pytest.raises(Conflict, match="no rollout of default/web is under way"):
        give(stage, order)


def test_a_recreate_is_not_paused() -> None:
    stage = Stage.of(3, strategy=RolloutStrategy.RECREATE)
    stage.change("v2")
    with pytest.raises(Conflict, match="cannot be paused"):
        give(stage, pause)


def test_only_what_is_well_is_promoted_and_only_once() -> None:
    stage = Stage.of(3, strategy=RolloutStrategy.CANARY, canary=1)
    stage.broken.add("v2")
    stage.change("v2")
    stage.go_on()
    with pytest.raises(Conflict, match="does not await promotion: it is PROGRESSING"):
        give(stage, promote)
    stage.change("v3")
    stage.go_on()
    assert [give(stage, promote), give(stage, promote)] == [True, False]
    stage.go_on()
    assert stage.versions() == {"v3": 3}


def test_undo_puts_back_what_was_before_and_undo_again_takes_that_back() -> None:
    stage = Stage.of(3)
    stage.change("v2")
    stage.go_on()
    stage.change("v3")
    stage.go_on()
    give(stage, undo, 0, stage.now_ms)
    stage.go_on()
    assert stage.versions() == {"v2": 3}
    give(stage, undo, 0, stage.now_ms)
    stage.go_on()
    assert stage.versions() == {"v3": 3}
    give(stage, undo, 1, stage.now_ms)
    stage.go_on()
    assert stage.versions() == {"v1": 3}


def test_undo_during_a_rollout_goes_back_to_what_was_good() -> None:
    stage = Stage.of(3)
    stage.broken.update(("v2", "v3"))
    for version in ("v2", "v3"):
        stage.change(version)
        stage.go_on()
    give(stage, undo, 0, stage.now_ms)
    stage.go_on()
    assert (stage.versions(), stage.notes.phase) == ({"v1": 3}, RolloutPhase.COMPLETED)


def test_undo_names_what_is_kept() -> None:
    stage = Stage.of(3)
    with pytest.raises(NotFound, match="keeps no earlier template"):
        give(stage, undo, 0, stage.now_ms)
    stage.change("v2")
    stage.go_on()
    with pytest.raises(NotFound, match="keeps no generation 7") as refused:
        give(stage, undo, 7, stage.now_ms)
    assert "kept are: 1" in refused.value.hint
    assert not give(stage, undo, 2, stage.now_ms), "that is the present one"
