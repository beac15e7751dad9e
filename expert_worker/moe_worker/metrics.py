"""The metrics of a worker: names, labels and units. Only data; `collect` reads their values.

In `series`: A experts assigned, usually one; L the layers that it computed.
"""

from __future__ import annotations

from typing import Final

from moe_core.metrics import Family, Kind

_MIXTURE: Final = ("mixture",)
_EXPERT: Final = ("mixture", "expert", "version")
_LAYER: Final = (*_EXPERT, "layer")
_FULL: Final = "A·L with --metrics-detail Full, else none"

ABOUT = Family(
    "moeops_worker",
    Kind.INFO,
    "The fingerprint of its numerics: answers are exact among workers of one.",
    (*_MIXTURE, "fingerprint"),
)
ROWS = Family("moeops_worker_rows", Kind.COUNTER, "Rows computed.", _MIXTURE)
ATTEMPTS = Family("moeops_worker_attempts", Kind.COUNTER, "Messages answered.", _MIXTURE)
BATCHES = Family("moeops_worker_batches", Kind.COUNTER, "Batches computed.", _MIXTURE)
MIXED = Family(
    "moeops_worker_mixed_batches",
    Kind.COUNTER,
    "Batches with rows of several messages together.",
    _MIXTURE,
)
FAILURES = Family(
    "moeops_worker_group_failures",
    Kind.COUNTER,
    "Groups of messages that were not computed, by gRPC code.",
    (*_MIXTURE, "code"),
    series="7",
)
BUSY = Family(
    "moeops_worker_busy_seconds",
    Kind.COUNTER,
    "Time spent computing, by one thread: its rate is the utilization, from 0 to 1.",
    _MIXTURE,
    "seconds",
)
QUEUED_ROWS = Family(
    "moeops_worker_queued_rows", Kind.GAUGE, "Rows that wait or are being computed.", _MIXTURE
)
QUEUE_ROOM = Family(
    "moeops_worker_queue_room_rows",
    Kind.GAUGE,
    "How many rows may wait; beyond it messages are refused with RESOURCE_EXHAUSTED.",
    _MIXTURE,
)
QUEUE_DELAY = Family(
    "moeops_worker_queue_delay_seconds",
    Kind.HISTOGRAM,
    "Time of messages from their arrival until the first row is computed.",
    _MIXTURE,
    "seconds",
    "20",
)
COMPUTE = Family(
    "moeops_worker_compute_duration_seconds",
    Kind.HISTOGRAM,
    "Time of the batches that a message had rows in.",
    _MIXTURE,
    "seconds",
    "20",
)
PHASE = Family(
    "moeops_worker_expert_phase",
    Kind.GAUGE,
    "1 for the phase that an assigned expert is in: FETCHING, VERIFYING, LOADING, WARMING, "
    "SERVING or REFUSED.",
    (*_EXPERT, "phase"),
    series="A",
)
STAGE = Family(
    "moeops_worker_expert_stage_seconds",
    Kind.GAUGE,
    "How long the last fetch, verify, load and warm of an expert took.",
    (*_EXPERT, "stage"),
    "seconds",
    "4·A",
)
EXPERT_ROWS = Family(
    "moeops_worker_expert_rows", Kind.COUNTER, "Rows computed by an expert.", _EXPERT, series="A"
)
EXPERT_BATCHES = Family(
    "moeops_worker_expert_batches", Kind.COUNTER, "Batches of it.", _EXPERT, series="A"
)
EXPERT_BUSY = Family(
    "moeops_worker_expert_busy_seconds",
    Kind.COUNTER,
    "Time spent computing it.",
    _EXPERT,
    "seconds",
    "A",
)
LAYER_ROWS = Family(
    "moeops_worker_layer_rows",
    Kind.COUNTER,
    "Rows computed by a layer of an expert.",
    _LAYER,
    series=_FULL,
)
LAYER_BUSY = Family(
    "moeops_worker_layer_busy_seconds",
    Kind.COUNTER,
    "Time spent computing it.",
    _LAYER,
    "seconds",
    _FULL,
)

FAMILIES: Final[tuple[Family, ...]] = tuple(
    value for value in globals().values() if isinstance(value, Family)
)
