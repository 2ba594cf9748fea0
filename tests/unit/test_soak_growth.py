"""Growth over a soak: a leak is found, noise and warming up are not, and too little is not judged."""

from __future__ import annotations

import random

import pytest

from cloudless.testing.load import Counts
from cloudless.testing.soak.growth import (
    FILLED_REVISIONS,
    JUDGED_SAMPLES_MIN,
    TOLERANCES,
    WARM_UP_SAMPLES,
    Filling,
    Sample,
    find_trends,
)
from cloudless.testing.soak.report import Round, SoakReport


def samples(figure: str, values: list[float], life: str = "coordinator-1 (pid 7)") -> list[Sample]:
    return [Sample(60.0 * i, life, {figure: value}) for i, value in enumerate(values)]


@pytest.mark.parametrize("figure", TOLERANCES)
def test_one_more_each_round_is_found_in_an_hour_of_rounds(figure: str) -> None:
    (trend,) = find_trends(samples(figure, [50.0 + i for i in range(60)]))
    assert trend.grows
    assert trend.per_hour == pytest.approx(60.0)


@pytest.mark.parametrize("figure", TOLERANCES)
def test_noise_around_a_level_is_no_growth(figure: str) -> None:
    noise = random.Random(3)
    (trend,) = find_trends(samples(figure, [50.0 + noise.uniform(-2, 2) for _ in range(60)]))
    assert not trend.grows


def test_warming_up_does_not_count() -> None:
    (trend,) = find_trends(samples("rss_mb", [20.0, 60.0, 90.0] + [100.0] * 9))
    assert (trend.first, trend.last, trend.grows) == (100.0, 100.0, False)


def test_memory_counts_from_when_all_that_is_bounded_is_full() -> None:
    filling = Filling()
    given = [
        Sample(float(i), "c", {"rss_mb": 70.0, "state_revision": 500.0 + i * FILLED_REVISIONS / 2}) for i in range(4)
    ]
    named = [filling.name_memory(sample).figures for sample in given]
    assert named == [{"rss_mb_while_filling": 70.0}, {"rss_mb_while_filling": 70.0}, {"rss_mb": 70.0}, {"rss_mb": 70.0}]
    assert filling.name_memory(Sample(0.0, "an agent", {"rss_mb": 50.0})).figures == {"rss_mb": 50.0}


def test_a_short_life_is_not_judged() -> None:
    assert find_trends(samples("fds", [float(i) for i in range(WARM_UP_SAMPLES + JUDGED_SAMPLES_MIN - 1)])) == []


def test_lives_are_judged_apart_even_under_one_name() -> None:
    before, after = samples("fds", [20.0] * 12, "agent-1 (pid 1)"), samples("fds", [60.0] * 12, "agent-1 (pid 2)")
    assert [trend.grows for trend in find_trends([*before, *after])] == [False, False]


def test_a_report_fails_on_growth_on_findings_and_on_nothing_done() -> None:
    round_ = Round(number=1, injected=("x",), load=Counts(acks=50), load_seed=1, healed_s=1.0, findings=())
    assert SoakReport(1, 1.0, [round_]).findings() == []
    assert SoakReport(1, 1.0).findings() == ["proves nothing: no round was finished"]
    leak = samples("threads", [10.0 + i for i in range(30)])
    assert "growth: coordinator-1 (pid 7): threads went from" in SoakReport(1, 1.0, [round_], leak).findings()[0]
    lost = Round(number=2, injected=("x",), load=Counts(), load_seed=1, healed_s=1.0, findings=("a write was lost",))
    report = SoakReport(1, 1.0, [round_, lost])
    assert report.findings() == ["round 2 (x): a write was lost"]
    assert not report.to_plain()["passed"]
    assert report.text().endswith("failed")
