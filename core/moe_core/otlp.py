"""Sends spans to a collector by OTLP over gRPC, in the background. The only user of OpenTelemetry.

Imported only where a collector is named. What is sampled is decided here, before anything of the
SDK is asked: that is all that a request costs which is not sampled.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Status, StatusCode

from moe_core.tracing import Attributes, Context, Span
from moe_core.tracing_settings import Tracing

_CLOSE_S = 2.0
_LOW_BITS = (1 << 64) - 1


class OtlpSpan:
    """A `Span`. `epoch_ns` is when the program's clock was at 0."""

    __slots__ = ("_epoch_ns", "_span", "_tracer", "context")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, epoch_ns: int) -> None:
        self._tracer, self._span, self._epoch_ns = tracer, span, epoch_ns
        known = span.get_span_context()
        self.context = Context(known.trace_id, known.span_id)

    def child(self, name: str, began_s: float, *, remote: bool = False) -> Span:
        within = trace.set_span_in_context(self._span)
        kind = trace.SpanKind.CLIENT if remote else trace.SpanKind.INTERNAL
        began = self._tracer.start_span(name, within, kind, start_time=self._at(began_s))
        return OtlpSpan(self._tracer, began, self._epoch_ns)

    def tell(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def since_1970_s(self, time_s: float) -> float:
        return self._at(time_s) / 1e9

    def end(self, ended_s: float, failure: str = "") -> None:
        if failure:
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end(self._at(ended_s))

    def _at(self, time_s: float) -> int:
        return self._epoch_ns + int(time_s * 1e9)


class OtlpTracer:
    """A `Tracer` for programs whose clock is `time.monotonic`."""

    def __init__(self, settings: Tracing, service: str, about: Mapping[str, str]) -> None:
        """`service` is its name where the settings have none; `about` is what its spans say too.

        Raises ValueError where the SDK does not take one of its own variables.
        """
        self._settings = settings
        self._bound = round(settings.ratio * (1 << 64))
        known = {name: value for name, value in about.items() if value}
        resource = Resource.create({"service.name": service, **known, **settings.resource})
        insecure = settings.endpoint.startswith("http://")
        try:
            exporter = OTLPSpanExporter(endpoint=settings.endpoint, insecure=insecure)
            processor = BatchSpanProcessor(exporter)
        except Exception as error:  # it has no one kind for what it does not take
            raise ValueError(f"OTEL_*: {error}") from error
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("moeops")

    def begin(self, name: str, parent: Context | None, began_s: float) -> Span | None:
        if not self._sampled(parent):
            return None
        epoch_ns = time.time_ns() - time.monotonic_ns()
        began_ns = epoch_ns + int(began_s * 1e9)
        within = trace.set_span_in_context(trace.INVALID_SPAN)
        if parent is not None:
            flags = trace.TraceFlags(parent.sampled)
            far = trace.SpanContext(parent.trace_id, parent.span_id, True, flags)
            within = trace.set_span_in_context(trace.NonRecordingSpan(far))
        kind = trace.SpanKind.SERVER
        began = self._tracer.start_span(name, within, kind=kind, start_time=began_ns)
        return OtlpSpan(self._tracer, began, epoch_ns)

    def close(self) -> None:
        """A collector that does not answer is not waited for."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_S)

    def _sampled(self, parent: Context | None) -> bool:
        if parent is None:
            return random.random() < self._settings.ratio
        if self._settings.parent_based:
            return parent.sampled
        return parent.trace_id & _LOW_BITS < self._bound  # as others decide of the same trace
