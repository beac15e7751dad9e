"""Routers and workers: latency by stage, errors, links, queues, and which worker is slow."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ANY_IS_BAD, Board, Row, panel
from dashboards.queries import OF_MIXTURE, mean, quantile, rate, ratio, select, top, total
from dashboards.variables import OF_MIXTURES
from moe_core import process_metrics as process
from moe_core.metrics import Family
from moe_router import metrics as router
from moe_worker import metrics as worker

_SLOW: Final = ((0.25, "yellow"), (1, "red"))
_INSTANCE: Final = "{{instance}}"
_PROCESS: Final = {family.name: family for family in process.FAMILIES}


def _slowest(q: float, family: Family) -> tuple[str, str]:
    return top(10, quantile(q, family, "instance")), _INSTANCE


_REQUESTS: Final = Row(
    "Requests",
    (
        panel(
            "Latency",
            "Time of answered requests in the router.",
            "s",
            *((quantile(q, router.ANSWERS), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
            steps=_SLOW,
        ),
        panel(
            "Stages, p99",
            "Until experts are chosen (gate), until all rows are answered (workers), and the "
            "rest (combine).",
            "s",
            (quantile(0.99, router.STAGES, "stage"), "{{stage}}"),
            steps=_SLOW,
        ),
        panel(
            "Stages, mean",
            "The same, as means: they add up.",
            "s",
            (mean(router.STAGES, "stage"), "{{stage}}"),
            steps=_SLOW,
        ),
        panel(
            "Requests by router",
            "The busiest routers.",
            "reqps",
            (top(20, rate(router.REQUESTS, "instance")), _INSTANCE),
        ),
        panel(
            "Failures by code",
            "Requests that got no answer. UNAVAILABLE: nobody could answer within the degraded "
            "budget; RESOURCE_EXHAUSTED: too much at once.",
            "reqps",
            (rate(router.FAILURES, "code"), "{{code}}"),
            steps=ANY_IS_BAD,
        ),
        panel(
            "Attempt errors by cause",
            "Attempts at a worker without a usable answer; others answer in their place.",
            "ops",
            (rate(router.ERRORS, "cause"), "{{cause}}"),
            steps=ANY_IS_BAD,
        ),
    ),
)

_LINKS: Final = Row(
    "Links and tables",
    (
        panel(
            "Links by state",
            "Links of all routers to workers. Silent: no byte for 250 ms.",
            "none",
            (total(router.LINKS, "state"), "{{state}}"),
        ),
        panel(
            "Links that are not live",
            "Routers with most links that are silent or still connecting.",
            "none",
            (
                top(20, total(router.LINKS, "instance", where=('state=~"Silent|Connecting"',))),
                _INSTANCE,
            ),
            steps=ANY_IS_BAD,
        ),
        panel(
            "Age of the table",
            "Time since the API server last confirmed the table, the oldest routers.",
            "s",
            (top(20, f"max by (instance) ({select(router.TABLE_AGE)})"), _INSTANCE),
            steps=((120, "yellow"), (600, "red")),
        ),
    ),
)

_WORKERS: Final = Row(
    "Workers",
    (
        panel(
            "Utilization, busiest",
            "Share of time that a worker computes, by one thread.",
            "percentunit",
            (top(20, rate(worker.BUSY, "instance")), _INSTANCE),
            steps=((0.7, "yellow"), (0.9, "red")),
        ),
        panel(
            "Queue delay, p99, longest",
            "From the arrival of a message until its first row is computed.",
            "s",
            _slowest(0.99, worker.QUEUE_DELAY),
            steps=((0.05, "yellow"), (0.25, "red")),
        ),
        panel(
            "Compute time, p99, slowest",
            "Time of the batches that a message had rows in.",
            "s",
            _slowest(0.99, worker.COMPUTE),
            steps=((0.05, "yellow"), (0.25, "red")),
        ),
        panel(
            "Queues, fullest",
            "Rows that wait, of those that may wait; at 1 messages are refused.",
            "percentunit",
            (
                top(
                    20,
                    f"{total(worker.QUEUED_ROWS, 'instance')} / "
                    f"{total(worker.QUEUE_ROOM, 'instance')}",
                ),
                _INSTANCE,
            ),
            steps=((0.5, "yellow"), (0.9, "red")),
        ),
        panel(
            "Groups that failed, by code",
            "Groups of messages that workers did not compute.",
            "ops",
            (rate(worker.FAILURES, "code"), "{{code}}"),
            steps=ANY_IS_BAD,
        ),
        panel(
            "Rows computed",
            "Rows by mixture.",
            "rowsps",
            (top(20, rate(worker.ROWS, *OF_MIXTURE)), "{{namespace}}/{{mixture}}"),
        ),
        panel(
            "Rows of a batch",
            "Mean number of rows computed at once.",
            "short",
            (
                top(20, ratio(worker.ROWS, worker.BATCHES, *OF_MIXTURE)),
                "{{namespace}}/{{mixture}}",
            ),
        ),
        panel(
            "Batches of several messages",
            "Share of batches with rows of several messages together.",
            "percentunit",
            (
                top(20, ratio(worker.MIXED, worker.BATCHES, *OF_MIXTURE)),
                "{{namespace}}/{{mixture}}",
            ),
        ),
        panel(
            "Fingerprints of numerics",
            "Workers by fingerprint. Answers are exact among those of one; with several, a "
            "replica's answer may have other bits.",
            "none",
            (f"count by (fingerprint) ({select(worker.ABOUT)})", "{{fingerprint}}"),
        ),
    ),
)

_PROCESSES: Final = Row(
    "Processes",
    (
        panel(
            "Processor time, most",
            "Processors used.",
            "none",
            (top(20, rate(_PROCESS["process_cpu_seconds"], "instance")), _INSTANCE),
            width=12,
        ),
        panel(
            "Memory, most",
            "Resident memory.",
            "bytes",
            (top(20, total(_PROCESS["process_resident_memory_bytes"], "instance")), _INSTANCE),
            width=12,
        ),
    ),
)

DATA_PLANE: Final = Board(
    "data-plane",
    "Data plane",
    "Routers and workers: latency by stage, failures, links, queues, and which worker is slow.",
    OF_MIXTURES,
    (_REQUESTS, _LINKS, _WORKERS, _PROCESSES),
)
