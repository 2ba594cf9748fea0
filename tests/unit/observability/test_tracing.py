"""Traces: nothing while off, connected across processes while on, never in the way of the work that is traced."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cloudless.errors import BadSettings, NotFound, StoreTimeout
from cloudless.observability import tracing
from cloudless.observability.otlp import QUEUE_LENGTH_MAX, OtlpTracer, TraceSettings
from cloudless.observability.secrets import keep_secret
from cloudless.settings import read_agent_settings, read_coordinator_settings, read_trace_settings
from tests.unit.observability.recorded import Recorded

ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_RECORDED = ELSEWHERE[:-1] + "0"
NAMED = {"CLOUDLESS_NODE_ID": "c1"}


def test_off_a_span_is_nothing_at_all() -> None:
    with tracing.span("work", {"a": 1}) as span, tracing.child("part") as part:
        part.set({"b": 2})
    assert span is part is tracing.NO_SPAN
    assert (span.traceparent, tracing.metadata(), tracing.current_ids(), tracing.now_ns()) == ("", None, ("", ""), None)


def test_off_the_library_is_not_imported() -> None:
    program = (
        "import sys, cloudless.coordinator.main, cloudless.agent.runtime, cloudless.cli.client\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_parts_belong_to_the_work_around_them() -> None:
    recorded = Recorded()
    with tracing.span("call", kind=tracing.Kind.SERVER), tracing.child("commit"):
        pass
    assert recorded.parents() == {"call": "", "commit": "call"}


def test_a_trace_goes_on_from_a_record() -> None:
    recorded = Recorded()
    with tracing.going_on(ELSEWHERE, "schedule") as span:
        assert tracing.trace_id_of(span.traceparent) == ELSEWHERE[3:35]
        assert tracing.current_ids() == (span.traceparent[3:35], span.traceparent[36:52])
    assert recorded.trace_ids() == {ELSEWHERE[3:35]}


@pytest.mark.parametrize(
    "spoilt",
    ["", "x", ELSEWHERE.upper(), ELSEWHERE + "0", "ff" + ELSEWHERE[2:], NOT_RECORDED, f"00-{'0' * 32}-{'1' * 16}-01"],
)
def test_a_spoilt_or_unrecorded_context_is_not_gone_on_from(spoilt: str) -> None:
    recorded = Recorded()
    with tracing.going_on(spoilt, "schedule") as span:
        assert span.traceparent == ""
    assert recorded.spans() == {}


def test_a_call_takes_along_that_it_is_not_recorded_and_a_record_then_carries_nothing() -> None:
    recorded = Recorded(ratio=0.0)
    with tracing.span("call"):
        ((key, sent),) = tracing.metadata() or ()
        assert (key, sent[-2:]) == ("traceparent", "00")
        assert tracing.current_traceparent() == ""
    with tracing.span("serve", parent=sent):
        pass
    assert recorded.spans() == {}


def test_what_is_rare_is_recorded_whatever_the_ratio() -> None:
    recorded = Recorded(ratio=0.0)
    whole = tracing.span("failover", parent=tracing.NEW, always=True, start_ns=1_000)
    tracing.going_on(whole.traceparent, "elect", start_ns=2_000).end(3_000)
    whole.end(4_000)
    assert recorded.parents() == {"failover": "", "elect": "failover"}
    assert [(span.start_time, span.end_time) for span in recorded.spans().values()] == [(2_000, 3_000), (1_000, 4_000)]
    assert all("cloudless.always" not in (span.attributes or {}) for span in recorded.spans().values())


def test_secrets_stay_out_of_traces_and_texts_are_bounded() -> None:
    recorded = Recorded()
    keep_secret("hunter2!")
    with pytest.raises(StoreTimeout), tracing.span("call", {"said": "hunter2!", "long": "x " * 10_000}):
        raise StoreTimeout("hunter2! was not taken")
    (span,) = recorded.spans().values()
    assert "hunter2" not in span.to_json()
    assert span.attributes is not None
    assert len(str(span.attributes["long"])) <= 500


def test_a_refusal_is_no_failure_of_ours_and_a_bug_is() -> None:
    recorded = Recorded()
    with pytest.raises(NotFound), tracing.span("refused"):
        raise NotFound("no such workload")
    with pytest.raises(ZeroDivisionError), tracing.span("broken"):
        1 / 0  # noqa: B018
    spans = recorded.spans()
    assert {name: span.status.is_ok for name, span in spans.items()} == {"refused": True, "broken": False}
    assert [(span.attributes or {})["error.type"] for span in spans.values()] == [NotFound.code, "ZeroDivisionError"]


class Stuck(SpanExporter):
    """A collector that takes the connection and never answers, until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait(30)
        return SpanExportResult.FAILURE


def test_a_stuck_collector_holds_nobody_up_and_what_is_lost_is_counted() -> None:
    stuck = Stuck()
    tracer = OtlpTracer(TraceSettings(endpoint="http://x", ratio=1, process="agent", node_id="n1"), stuck)
    tracing.set_tracer(tracer)
    count = 2 * QUEUE_LENGTH_MAX
    for _ in range(count):
        tracing.span("work").end()
    assert tracer.dropped_total >= count - QUEUE_LENGTH_MAX - 512
    began_s = time.monotonic()
    tracing.stop_tracing(0.2)
    assert time.monotonic() - began_s < 2
    assert not tracing.is_on()
    stuck.free.set()


def test_an_exporter_that_raises_is_counted_too() -> None:
    class Broken(Stuck):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no route")

    tracer = OtlpTracer(TraceSettings(endpoint="http://x", ratio=1, process="agent", node_id="n1"), Broken())
    tracing.set_tracer(tracer)
    tracing.span("work").end()
    tracing.stop_tracing(5)
    assert (tracer.exported_total, tracer.dropped_total) == (0, 1)


@pytest.mark.parametrize(
    ("given", "sent_to"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/", "https://collector/v1/traces"),
        ("http://collector:4318/otel/v1/traces", "http://collector:4318/otel/v1/traces"),
        ("", ""),
    ],
)
def test_the_collector_is_a_url(given: str, sent_to: str) -> None:
    environ = {**NAMED, "CLOUDLESS_OTLP_ENDPOINT": given, "CLOUDLESS_TRACE_RATIO": "0.25"}
    agent = {**environ, "CLOUDLESS_COORDINATOR_ADDR": "c1"}
    for settings in (read_coordinator_settings(environ), read_agent_settings(agent)):
        assert (settings.otlp_endpoint, settings.trace_ratio) == (sent_to, 0.25)
    assert read_trace_settings(environ) == (sent_to, 0.25)


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("OTLP_ENDPOINT", "collector:4317", "must be the URL"),
        ("OTLP_ENDPOINT", "http://user:secret@collector", "must be the URL"),
        ("TRACE_RATIO", "1.5", "from 0 to 1"),
        ("TRACE_RATIO", "nan", "from 0 to 1"),
        ("LOG_FORMAT", "xml", "one of human, json"),
        ("LOG_FROMAT", "json", "did you mean CLOUDLESS_LOG_FORMAT"),
        ("TRACE_RATOI", "1", "did you mean CLOUDLESS_TRACE_RATIO"),
    ],
)
def test_settings_that_are_wrong_are_told_with_the_cure(name: str, value: str, cure: str) -> None:
    with pytest.raises(BadSettings, match=cure):
        read_coordinator_settings({**NAMED, f"CLOUDLESS_{name}": value})


def test_logs_are_for_people_and_nothing_is_traced_unless_asked_for() -> None:
    settings = read_coordinator_settings(NAMED)
    assert (settings.log_format, settings.otlp_endpoint, settings.trace_ratio) == ("human", "", 1.0)
    assert read_coordinator_settings({**NAMED, "CLOUDLESS_LOG_FORMAT": "JSON"}).log_format == "json"
