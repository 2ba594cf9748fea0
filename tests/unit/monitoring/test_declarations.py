"""Metrics: what is declared is served, with a value each, in names that Prometheus' own tool finds no fault with."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloudless.agent.session import EndKind
from cloudless.coordinator.replica import WatchReset
from cloudless.coordinator.runtime import SERVICES as SERVED
from cloudless.core.localtask import ProbePurpose
from cloudless.core.membership.health import describe_health
from cloudless.core.membership.observed import MemberView
from cloudless.core.probing import Answer
from cloudless.core.scheduling.wakes import UNBLOCKED_BY
from cloudless.observability import metrics
from cloudless.observability.declared import Declared, Kind, counter, gauge, histogram
from cloudless.observability.manual import write_manual
from cloudless.observability.metrics import AGENT, AGENT_PREFIX, COORDINATOR, COORDINATOR_PREFIX, OBSTACLES
from cloudless.observability.registry import ProcessMetrics, Value, unknown
from cloudless.observability.requests import RequestMetrics
from tests.architecture.tree import ROOT
from tests.prometheus_tools import promtool

BOTH = ((COORDINATOR_PREFIX, COORDINATOR), (AGENT_PREFIX, AGENT))
SERIES_MAX = 40


def serve(prefix: str, declared: tuple[Declared, ...], values: dict[str, Value]) -> ProcessMetrics:
    return ProcessMetrics(prefix, declared, lambda: {**unknown(declared), **values})


def samples(made: ProcessMetrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return every sample by name and label values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(made.render())
        for sample in family.samples
    }


@pytest.mark.parametrize(("prefix", "declared"), BOTH)
def test_all_that_is_declared_is_served_from_the_first_scrape_on(prefix: str, declared: tuple[Declared, ...]) -> None:
    served = samples(serve(prefix, declared, {}))
    for one in declared:
        names = [f"{prefix}{one.sample_name}{'_count' if one.kind is Kind.HISTOGRAM else ''}"]
        for name in names:
            if one.values:
                assert all((name, (value,)) in served for value in one.values), name
            elif not one.labels:
                assert (name, ()) in served


@pytest.mark.parametrize(("prefix", "declared"), BOTH)
def test_promtool_finds_nothing_to_say(prefix: str, declared: tuple[Declared, ...]) -> None:
    values: dict[str, Value] = {
        one.name: {("x",) * len(one.labels): 1.0} for one in declared if one.labels and not one.values
    }
    made = serve(prefix, declared, {name: value for name, value in values.items() if name != "requests"})
    if prefix == COORDINATOR_PREFIX:
        made.counter("requests", "cloudless.rpc.v1.NodeService/ListNodes", "ok")(1)
    done = promtool("check", "metrics", stdin=made.render())
    ours = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("cloudless")]
    assert not ours
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("one", [*COORDINATOR, *AGENT], ids=lambda one: one.name)
def test_labels_are_few_and_known(one: Declared) -> None:
    assert not one.values or len(one.labels) == 1
    assert bool(one.labels) == bool(one.values or one.bound), "say which values there are, or why they stay few"
    assert len(one.values) <= SERIES_MAX
    assert re.fullmatch(r"[a-z][a-z0-9_]*", one.name)


def test_no_name_is_declared_twice() -> None:
    for _, declared in BOTH:
        names = [one.name for one in declared]
        assert len(names) == len(set(names))


def test_listed_values_are_those_of_the_program() -> None:
    assert set(metrics.SESSION_ENDS) == {kind.value for kind in EndKind}
    refused = (path.read_text(encoding="utf-8") for path in (ROOT / "cloudless" / "agent").glob("*.py"))
    assert set(metrics.REFUSALS) == set(re.findall(r'\bRefused\(\s*"([a-z-]+)"', "".join(refused)))
    assert set(metrics.WATCH_RESETS) == {cause.value for cause in WatchReset}
    assert set(metrics.SERVICES) == {*(descriptor.name for descriptor in SERVED.values()), metrics.OTHER}
    answers = {f"{p.value}-{a.value}" for p in ProbePurpose for a in (Answer.SUCCESS, Answer.FAILURE)}
    assert set(metrics.PROBES) == answers


@pytest.mark.parametrize("learner", [True, False])
@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("ailment", ["", "slow"])
@pytest.mark.parametrize("lag", [None, 0, 5000])
def test_a_members_health_is_one_of_the_words(
    learner: bool, started: bool, linked: bool, ailment: str, lag: int | None
) -> None:
    view = MemberView(1, "c1", (), learner=learner, started=started, linked=linked, ailment=ailment)
    assert describe_health(view, lag, 1000) in metrics.MEMBER_HEALTH


def test_a_metric_that_the_sample_forgets_fails_the_scrape() -> None:
    made = ProcessMetrics("x_", [gauge("a", "a"), gauge("b", "b")], lambda: {"a": 1.0})
    with pytest.raises(KeyError):
        made.render()


def test_a_value_that_is_not_listed_fails_the_scrape() -> None:
    made = ProcessMetrics("x_", [gauge("a", "a", label="state", values=("on",))], lambda: {"a": {"off": 1.0}})
    with pytest.raises(ValueError, match="off"):
        made.render()


def test_counters_and_histograms_are_counted_as_it_happens() -> None:
    declared = (
        counter("done", "done", label="how", values=("well", "badly"), recorded=True),
        histogram("took_seconds", "took", (0.1, 1.0)),
    )
    made = ProcessMetrics("x_", declared, dict)
    made.counter("done", "well")(2)
    made.observer("took_seconds")(0.5)
    served = samples(made)
    assert served["x_done_total", ("well",)] == 2
    assert served["x_done_total", ("badly",)] == 0
    assert served["x_took_seconds_bucket", ("0.1",)] == 0
    assert served["x_took_seconds_bucket", ("1.0",)] == 1
    assert served["x_took_seconds_sum", ()] == 0.5
    assert not [name for name, _ in served if name.endswith("_created") and name.startswith("x_")]


def test_a_stream_is_counted_and_not_timed() -> None:
    made = serve(COORDINATOR_PREFIX, COORDINATOR, {})
    told = RequestMetrics(made)
    told.observe("cloudless.rpc.v1.NodeService/ListNodes", "ok", 0.02)
    told.observe("cloudless.rpc.v1.AgentService/Session", "cancelled", None)
    told.observe("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "ok", 0.02)
    served = samples(made)
    assert served["cloudless_coordinator_request_seconds_count", ("NodeService",)] == 1
    assert served["cloudless_coordinator_request_seconds_count", ("AgentService",)] == 0
    assert served["cloudless_coordinator_request_seconds_count", ("other",)] == 1
    key = "cloudless_coordinator_requests_total", ("cloudless.rpc.v1.AgentService/Session", "cancelled")
    assert served[key] == 1


def test_the_seeds_metrics_have_their_names() -> None:
    served = {f"{COORDINATOR_PREFIX}{one.sample_name}" for one in COORDINATOR}
    assert {f"cloudless_coordinator_{name}" for name in ("is_leader", "raft_state", "raft_applied_index")} <= served
    assert "cloudless_coordinator_raft_commit_index" in served


def test_the_manual_is_fresh() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == write_manual(), "write it anew: python -m cloudless.observability.manual > docs/metrics.md"


def test_every_obstacle_of_the_scheduler_has_its_series() -> None:
    assert set(OBSTACLES) == set(UNBLOCKED_BY)
