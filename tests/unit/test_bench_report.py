"""The benchmark's figures, its page and its plots: what is written must be what was measured."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.tree import ROOT
from tests.bench.__main__ import put_beside
from tests.bench.docs import page_of
from tests.bench.figures import Figure, at_least, at_most, ratio
from tests.bench.load import Step, run_load, take_turns
from tests.bench.machine import machine_facts
from tests.bench.plots import PLOTS, draw
from tests.bench.table import bar_text, number

STORED = ROOT / "docs/results/bench.json"


def build_result(*figures: Figure, quick: bool = False) -> dict[str, Any]:
    return {
        "schema": 1,
        "date": "2026-01-02T03:04Z",
        "quick": quick,
        "machine": {
            "cpus": 2, "cpu_model": "some processor", "memory_mb": 24 * 1024, "kernel": "6.1", "system": "some Linux",
            "load_1min_at_start": 0.1,
        },
        "versions": {"cloudless": "0.1", "etcd": "3.5.30"},
        "sections": {"transport": {"took_s": 1.0, "figures": [figure.to_plain() for figure in figures]}},
    }  # fmt: skip


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_median() -> None:
    figure = ratio("r", "ours / theirs", (10.0, 40.0, 30.0), (10.0, 10.0, 100.0), at_least(1.0))
    assert figure.values == (1.0, 4.0, 0.3)
    assert figure.median == 1.0
    assert figure.met


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [(at_least(2.0), 2.0, True), (at_least(2.0), 1.9, False), (at_most(0), 0, True), (at_most(0), 1, False)],
)
def test_a_bar_is_met_by_reaching_it_and_by_not_exceeding_it(bar: Any, value: float, met: bool) -> None:
    assert Figure("f", "f", "s", (value,), bar).met is met


def test_the_page_names_every_figure_and_says_which_goals_are_missed() -> None:
    good = Figure("good", "a good one", "1/s", (1000.0, 3000.0, 2000.0), at_least(1000))
    bad = Figure("bad", "a bad one", "ms", (4.5,), at_most(3))
    page = page_of(build_result(good, bad, quick=True))
    assert "## Goals: 1 of 2 met" in page
    assert "| transport | a good one | 2,000 1/s | 1,000 … 3,000 | ≥ 1000 met |" in page
    assert "| transport | a bad one | 4.5 ms |  | ≤ 3 NOT met |" in page
    assert "quick run" in page


def test_a_section_measured_anew_stands_beside_the_others_with_its_own_date_unless_the_machine_is_another() -> None:
    old, new = build_result(Figure("f", "old", "s", (1.0,))), build_result(Figure("f", "new", "s", (2.0,)))
    old["versions"]["commit"], new["versions"]["commit"] = "aaa", "bbb"
    old["sections"]["writes"] = old["sections"]["transport"]
    new["sections"]["transport"] |= {"date": "2026-02-03T04:05Z", "commit": "bbb"}
    page = page_of(put_beside(old, new))
    assert "Measured 2026-02-03T04:05Z at commit bbb, apart from the others." in page
    assert page.index("new |") < page.index("old |")
    assert put_beside({}, new) is new
    new["machine"]["cpus"] = 64
    with pytest.raises(SystemExit, match="of another cpus: measure all"):
        put_beside(old, new)


def test_the_page_in_the_repository_is_what_the_stored_result_gives() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert page == page_of(stored), "scripts/bench --redraw writes it anew"
    for name in [*(n for n, section in stored["sections"].items() if n in PLOTS and section["figures"]), "goals"]:
        assert (ROOT / f"docs/plots/{name}.svg").is_file()


def test_a_section_that_could_not_be_measured_is_told_as_such() -> None:
    result = build_result(Figure("echo_1", "one", "1/s", (1.0,)))
    result["sections"]["watch"] = {"took_s": 1.0, "figures": [], "failed": "Unavailable: nobody answers"}
    page = page_of(result)
    assert "Could not be measured: Unavailable: nobody answers" in page
    assert "plots/watch.svg" not in page


def test_the_machine_is_described_without_its_name() -> None:
    described = {"cpus", "cpu_model", "memory_mb", "kernel", "system", "load_1min_at_start"}
    assert set(machine_facts()) == described
    assert set(json.loads(STORED.read_text(encoding="utf-8"))["machine"]) == described


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="plots need the extra `bench`")
def test_plots_are_the_same_bytes_each_time_they_are_drawn(tmp_path: Path) -> None:
    result = build_result(Figure("echo_1", "one", "1/s", (1.0, 2.0), at_least(1.0)), Figure("other", "x", "s", (1.0,)))
    draw(result, tmp_path / "a")
    draw(result, tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["goals.svg", "transport.svg"]
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_load_counts_every_call_and_what_each_is_worth() -> None:
    calls: list[int] = []

    async def call(caller: int) -> None:
        calls.append(caller)
        await asyncio.sleep(0.001)

    load = asyncio.run(run_load(Step(call, in_flight=3, worth=10), duration_s=0.05))
    assert set(calls) == {0, 1, 2}
    assert load.count == len(calls)
    assert load.p50_ms >= 1.0
    assert load.rate_per_s > 10 * load.count


def test_a_call_that_fails_ends_the_measurement() -> None:
    async def call(_: int) -> None:
        raise OSError("gone")

    with pytest.raises(ExceptionGroup):
        asyncio.run(run_load(Step(call, in_flight=2), duration_s=0.05))


def test_turns_are_taken_forwards_and_backwards_and_the_first_does_not_count() -> None:
    order: list[str] = []

    def step(name: str) -> Step:
        async def call(_: int) -> None:
            order.append(name)

        return Step(call, in_flight=1)

    loads = asyncio.run(take_turns({"a": step("a"), "b": step("b")}, 2, 0.0001, lambda _: None))
    assert [name for name, before in zip(order, ["", *order], strict=False) if name != before] == ["b", "a", "b", "a"]
    assert {name: len(found) for name, found in loads.items()} == {"a": 2, "b": 2}


def test_numbers_are_written_as_people_read_them() -> None:
    assert [number(value) for value in (0, 0.0234567, 12.345, 99.96, 123.4, 18410)] == [
        "0", "0.0235", "12.3", "100", "123", "18,410",
    ]  # fmt: skip
    assert bar_text({"bar": None}) == ""
