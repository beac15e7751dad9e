"""A collector of OpenTelemetry in this process: takes real OTLP over gRPC, and keeps the spans.

with collector() as collected:
    start(environment=collected.environment)
    collected.wait_for({"request": 1})
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WAIT_S = 30.0


@dataclass(frozen=True)
class Collected:
    """One span, as a person would look at it; `resource` is what its process says of itself."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    failure: str
    kind: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]

    @property
    def service(self) -> str:
        return str(self.resource["service.name"])


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what comes; `address` is where."""

    def __init__(self) -> None:
        self.address = ""
        self.server = grpc.server(ThreadPoolExecutor(4))
        self._spans: list[Collected] = []
        self._change = threading.Condition()

    @property
    def environment(self) -> dict[str, str]:
        """What a program is to be started with; it sends within a tenth of a second."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.address}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._change:
            for sent in request.resource_spans:
                resource = _read(sent.resource.attributes)
                for scope in sent.scope_spans:
                    self._spans += [_collected(span, resource) for span in scope.spans]
            self._change.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        """Take nothing any more; what was taken stays."""
        self.server.stop(None).wait()

    def spans(self, trace_id: str = "") -> list[Collected]:
        """Return what has come, of one trace or of all, in the order of their beginning."""
        with self._change:
            found = [one for one in self._spans if trace_id in ("", one.trace_id)]
        return sorted(found, key=lambda one: one.began_ns)

    def wait_for(self, names: Mapping[str, int], trace_id: str = "") -> list[Collected]:
        """Wait until there are so many spans of each name; return all."""
        until = time.monotonic() + WAIT_S
        while True:
            found = self.spans(trace_id)
            if not Counter(names) - Counter(one.name for one in found):
                return found
            assert time.monotonic() < until, f"only {[one.name for one in found]} came of {names}"
            with self._change:
                self._change.wait(0.1)


@contextmanager
def collector() -> Iterator[Collector]:
    """Listen on a free port of loopback."""
    made = Collector()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # it has no types
    add(made, made.server)
    made.address = f"127.0.0.1:{made.server.add_insecure_port('127.0.0.1:0')}"
    made.server.start()
    try:
        yield made
    finally:
        made.stop()


def _collected(span: Span, resource: Mapping[str, Any]) -> Collected:
    return Collected(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        failure=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else "",
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        attributes=_read(span.attributes),
        resource=resource,
    )


def _read(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)
