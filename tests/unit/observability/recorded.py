"""A tracer that keeps its spans in memory: the production one, with the exporter taken away."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cloudless.observability import tracing
from cloudless.observability.otlp import OtlpTracer, TraceSettings


class Recorded:
    """What was traced since it was made."""

    def __init__(self, ratio: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        settings = TraceSettings(endpoint="http://nowhere", ratio=ratio, process="coordinator", node_id="c1")
        self.tracer = OtlpTracer(settings, self._exporter)
        tracing.set_tracer(self.tracer)

    def spans(self) -> dict[str, ReadableSpan]:
        """Return the ended spans by name; of several of one name the last."""
        self.tracer._provider.force_flush()
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def parents(self) -> dict[str, str]:
        """Return the name of each span's parent, "" for roots and for parents elsewhere."""
        spans = self.spans()
        names = {span.context.span_id: name for name, span in spans.items() if span.context}
        return {
            name: names.get(span.parent.span_id, "elsewhere") if span.parent else "" for name, span in spans.items()
        }

    def trace_ids(self) -> set[str]:
        return {f"{span.context.trace_id:032x}" for span in self.spans().values() if span.context}
