"""Traces behind the seam: OpenTelemetry's SDK, sent as OTLP over HTTP. Imported only while tracing is on.

Nothing here can fail or hold up the work that is traced: spans wait in a bounded queue for a thread of the SDK's, what
finds it full is dropped and counted, and what the collector does not take is counted and told once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from loguru import logger
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from cloudless import __version__
from cloudless.errors import CloudlessError, UserError
from cloudless.observability.secrets import clean
from cloudless.observability.tracing import NEW, Kind, Span, Value, is_valid, set_tracer

QUEUE_LENGTH_MAX = 4_096
BATCH_LENGTH_MAX = 512
EXPORT_PERIOD_MS = 1_000
EXPORT_TIMEOUT_S = 3.0
TEXT_LENGTH_MAX = 500
ALWAYS = "cloudless.always"
_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """`endpoint` is the collector's URL with the path of traces; `ratio` (0 to 1) the share of new traces recorded.

    `process` (coordinator, agent, cli) and `node_id` say whose spans these are.
    """

    endpoint: str
    ratio: float
    process: str
    node_id: str


def start_tracing(settings: TraceSettings) -> None:
    """Trace from now on. OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE and _COMPRESSION are honoured by the exporter."""
    # Its own lines tell of every batch that was not taken; ours tell when that begins and ends.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=EXPORT_TIMEOUT_S)
    set_tracer(OtlpTracer(settings, exporter))
    logger.info("tracing to {}, ratio {:g}", settings.endpoint, settings.ratio)


class OtlpTracer:
    """The tracer of this process."""

    def __init__(self, settings: TraceSettings, exporter: SpanExporter) -> None:
        self._counted = _Counted(exporter)
        self._processor = _Bounded(self._counted)
        resource = {
            "service.name": f"cloudless-{settings.process}",
            "service.instance.id": settings.node_id,
            "service.version": __version__,
        }
        self._provider = TracerProvider(
            sampler=_Always(ParentBased(TraceIdRatioBased(settings.ratio))),
            resource=Resource.create(resource),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attributes=32, max_events=8, max_span_attribute_length=TEXT_LENGTH_MAX),
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("cloudless", __version__)

    @property
    def dropped_total(self) -> int:
        """Spans that found the queue full, or were not taken by the collector."""
        return self._processor.dropped_total + self._counted.failed_total

    @property
    def exported_total(self) -> int:
        return self._counted.exported_total

    def start(
        self,
        name: str,
        *,
        parent: str = "",
        kind: Kind = Kind.INTERNAL,
        start_ns: int | None = None,
        always: bool = False,
        attributes: Mapping[str, Value],
    ) -> Span:
        found = _cleaned(attributes)
        if always:
            found[ALWAYS] = True
        context = Context() if parent == NEW else _context_of(parent) if is_valid(parent) else None
        return _OtlpSpan(self._tracer.start_span(name, context, _KINDS[kind], found, start_time=start_ns))

    def current_traceparent(self) -> str:
        return _to_traceparent(otel.get_current_span().get_span_context())

    def shutdown(self, timeout_s: float) -> None:
        # In a thread: the SDK waits for its own up to half a minute, and that one for the collector.
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-shutdown", daemon=True)
        ending.start()
        ending.join(timeout_s)
        if lost := self.dropped_total + self._processor.waiting:
            logger.warning("tracing: {} spans were not sent", lost)


class _OtlpSpan(Span):
    """A span of the SDK's."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: otel.Span) -> None:
        self._span = span
        self._token: object = None

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return _to_traceparent(context) if context.trace_flags.sampled else ""

    def set(self, attributes: Mapping[str, Value]) -> None:
        if self._span.is_recording():
            self._span.set_attributes(_cleaned(attributes))

    def end(self, end_ns: int | None = None) -> None:
        self._span.end(end_ns)

    def __enter__(self) -> Span:
        self._token = otel_context.attach(otel.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._span.is_recording():
            self._fail(error)
        if self._token is not None:
            otel_context.detach(self._token)  # type: ignore[arg-type]
        self._span.end()

    def _fail(self, error: BaseException) -> None:
        """Note an error by its code; a request that was rightly refused is no failure of ours."""
        code = error.code if isinstance(error, CloudlessError) else type(error).__name__
        self._span.set_attribute("error.type", code)
        if not isinstance(error, UserError):
            self._span.set_status(Status(StatusCode.ERROR, clean(str(error))[:TEXT_LENGTH_MAX]))


class _Always(Sampler):
    """Records what is marked so, and leaves the rest to another sampler."""

    def __init__(self, rest: Sampler) -> None:
        self._rest = rest

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if attributes and attributes.get(ALWAYS):
            kept = {name: value for name, value in attributes.items() if name != ALWAYS}
            return SamplingResult(Decision.RECORD_AND_SAMPLE, kept, trace_state)
        return self._rest.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return f"Always({self._rest.get_description()})"


class _Counted(SpanExporter):
    """Counts what another exporter sends, and says when it fails and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False
        self.taken_total = self.exported_total = self.failed_total = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken_total += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # a library's bug must not end the thread that sends
            logger.debug("tracing: {!r}", error)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.exported_total += len(spans)
        else:
            self.failed_total += len(spans)
        self._tell(fails=result is not SpanExportResult.SUCCESS)
        return result

    def _tell(self, *, fails: bool) -> None:
        if fails != self._fails:
            self._fails = fails
            if fails:
                logger.warning("tracing: the collector takes no spans; they are dropped until it does")
            else:
                logger.info("tracing: the collector takes spans again; {} were dropped", self.failed_total)

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Bounded(BatchSpanProcessor):
    """The SDK's queue and thread; what finds the queue full is counted instead of pushing another out unseen."""

    def __init__(self, counted: _Counted) -> None:
        super().__init__(
            counted,
            max_queue_size=QUEUE_LENGTH_MAX,
            schedule_delay_millis=EXPORT_PERIOD_MS,
            max_export_batch_size=BATCH_LENGTH_MAX,
        )
        self._counted = counted
        self._queued_total = 0
        self.dropped_total = 0

    @property
    def waiting(self) -> int:
        return self._queued_total - self._counted.taken_total

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self.waiting >= QUEUE_LENGTH_MAX:
            self.dropped_total += 1
            return
        self._queued_total += 1
        super().on_end(span)


def _cleaned(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {name: clean(value) if isinstance(value, str) else value for name, value in attributes.items()}


def _context_of(traceparent: str) -> Context:
    context = SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[-2:], 16)),
    )
    return otel.set_span_in_context(NonRecordingSpan(context), Context())


def _to_traceparent(context: SpanContext) -> str:
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"
