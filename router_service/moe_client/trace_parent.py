"""Says to which trace a request belongs: that of the caller's own OpenTelemetry, if it has one.

Nothing of OpenTelemetry is imported here: who uses it has imported it.
"""

from __future__ import annotations

import sys

from moe_core.tracing import Context


def current_traceparent() -> str:
    """Return the W3C `traceparent` of the span that the caller is in; empty where there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    known = trace.get_current_span().get_span_context()
    if not known.is_valid:
        return ""
    return Context(known.trace_id, known.span_id, known.trace_flags.sampled).traceparent
