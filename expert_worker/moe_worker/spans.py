"""Tells of a traced attempt, once it is answered, how long its rows waited and were computed."""

from __future__ import annotations

from moe_core.tracing import Context, Span, Tracer
from moe_worker.attempt import Attempt, Group
from moe_worker.counters import Counters


class ComputeSpans:
    """A span for each group of rows, under the one by which the router asked for it."""

    def __init__(self, tracer: Tracer, counters: Counters) -> None:
        self._tracer, self._counters = tracer, counters

    def tell(self, attempt: Attempt, now_us: int) -> None:
        """Tell of all groups; the attempt ended at `now_us`."""
        spans = [self._tell(attempt, group, now_us) for group in attempt.groups if group.span_id]
        first = next((span for span in spans if span is not None), None)
        if first is not None:
            began_us = now_us if attempt.began_us is None else attempt.began_us
            at_s, ids = first.since_1970_s(now_us / 1e6), first.context.ids
            queue_us = began_us - attempt.received_us
            self._counters.traced(queue_us, attempt.compute_us, ids, at_s)

    def _tell(self, attempt: Attempt, group: Group, now_us: int) -> Span | None:
        parent = Context(attempt.trace_id, group.span_id)
        span = self._tracer.begin("compute", parent, attempt.received_us / 1e6)
        if span is None:
            return None
        began_us = now_us if group.began_us is None else group.began_us
        sha256, layer = group.slot
        span.tell(
            {
                "moe.sha256": sha256,
                "moe.layer": layer,
                "moe.rows": group.rows,
                "moe.queue_us": began_us - attempt.received_us,
                "moe.compute_us": group.compute_us,
            }
        )
        span.end(now_us / 1e6, group.failure.message if group.failure is not None else "")
        return span
