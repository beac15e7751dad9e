"""The metrics of a router: names, labels and units. Only data; `collect` reads their values.

In `series`: N tenants, L layers, E experts, V the versions that the table names of them (one each
at rest), G the gate versions, T what is on trial. Of versions and experts at most `MAX_EXPERTS`
are told.
"""

from __future__ import annotations

from typing import Final

from moe_core.metrics import Family, Kind, Labels

MAX_EXPERTS: Final = 512
MAX_CELLS: Final = 512
MOVING_CELLS: Final = 64

_MIXTURE: Final = ("mixture",)
_TENANT: Final = ("mixture", "tenant")
_VERSION: Final = ("mixture", "expert", "version")
_GATE: Final = ("mixture", "gate", "version")
_LAYER: Final = (*_GATE, "layer")
_CAPPED: Final = f"V, at most {MAX_EXPERTS}"
_PER_LAYER: Final = "G·L"


def _counter(name: str, help_: str, labels: Labels, series: str, unit: str = "") -> Family:
    return Family(f"moeops_{name}", Kind.COUNTER, help_, labels, unit, series)


def _gauge(name: str, help_: str, labels: Labels, series: str, unit: str = "") -> Family:
    return Family(f"moeops_{name}", Kind.GAUGE, help_, labels, unit, series)


def _seconds(name: str, help_: str, labels: Labels, series: str) -> Family:
    return Family(f"moeops_{name}_seconds", Kind.HISTOGRAM, help_, labels, "seconds", series)


REQUESTS = _counter(
    "router_requests", "Requests, each rows of one layer, answered or not.", _MIXTURE, "1"
)
FAILURES = _counter(
    "router_failures", "Requests that got no answer, by gRPC code.", (*_MIXTURE, "code"), "8"
)
ANSWERS = _seconds(
    "router_request_duration", "Time of answered requests in the router.", _MIXTURE, "19"
)
STAGES = _seconds(
    "router_stage_duration",
    "Time of answered requests until experts are chosen (gate; a wait for a turn is in it), until "
    "all rows are answered (workers), and the rest (combine).",
    (*_MIXTURE, "stage"),
    "57",
)
ROWS_UNDER_WAY = _gauge("router_rows_under_way", "Rows of requests under way.", _MIXTURE, "1")
UNAUTHENTICATED = _counter(
    "router_unauthenticated_calls",
    "Calls without a valid token, where the mixture has tenants.",
    _MIXTURE,
    "1 with tenants",
)
TENANT_ROWS = _counter("router_tenant_rows", "Rows let in.", _TENANT, "N, at most 64")
TENANT_REFUSED = _counter(
    "router_tenant_refused_requests",
    "Requests over a quota of their tenant, by quota.",
    (*_TENANT, "quota"),
    "2·N",
)
TENANT_DELAY = _seconds(
    "router_tenant_queue_delay",
    "How long requests waited for their turn, 0 where they did not.",
    _TENANT,
    "19·N",
)
STREAMS = _gauge("router_streams", "Streams that clients have open.", _MIXTURE, "1")
ERRORS = _counter(
    "router_attempt_errors",
    "Attempts at a worker without a usable answer, by cause.",
    (*_MIXTURE, "cause"),
    "5",
)
RUNG_ROWS = _counter(
    "router_rung_rows",
    "(Row, slot) pairs that a rung of the ladder answered for; Replica and Stable are whole "
    "answers, all others degraded ones.",
    (*_MIXTURE, "rung"),
    "6",
)
COLD_ROWS = _gauge(
    "router_cold_rows",
    "Rows that wait for an expert that nobody holds, each for each such expert.",
    _MIXTURE,
    "1 where an expert has onCold Wait",
)
COLD_WAIT = _seconds(
    "router_cold_wait",
    "How long rows of a request waited for an expert that nobody held.",
    _MIXTURE,
    "19 where an expert has onCold Wait",
)
COLD_ENDS = _counter(
    "router_cold_waits",
    "Rows that waited so, by what became of it: Served by the expert, Climbed the ladder as their "
    "time was up, Refused as too many waited, Abandoned as their request ended.",
    (*_MIXTURE, "end"),
    "4 where an expert has onCold Wait",
)
LINKS = _gauge("router_links", "Links to workers by state.", (*_MIXTURE, "state"), "4")
EJECTED = _gauge(
    "router_ejected_workers",
    "Workers that are asked last for a while, because they behave unlike their peers.",
    _MIXTURE,
    "1",
)
LATE = _gauge(
    "router_late_workers",
    "Workers whose answers come later than computing explains, so that replicas are asked first.",
    _MIXTURE,
    "1",
)
HEDGES = _counter(
    "router_hedges",
    "Attempts that took unusually long and were tried on another worker as well.",
    _MIXTURE,
    "1",
)
EPOCH = _gauge("router_table_epoch", "Epoch of the table that is served.", _MIXTURE, "1")
TABLE_AGE = _gauge(
    "router_table_age_seconds",
    "Time since the table's source last confirmed it.",
    _MIXTURE,
    "1",
    "seconds",
)
TABLE_SOURCE = _gauge(
    "router_table_source",
    "By whom the table is (1): Live where its source confirmed it since the router began, Kept "
    "where only the router's own copy on disk is there.",
    (*_MIXTURE, "source"),
    "2",
)
GATES_READY = _gauge(
    "router_gate_loaded",
    "Whether a gate version that the table names is loaded here (1) or not (0).",
    _GATE,
    "G",
)

VERSION_REQUESTS = _counter(
    "router_version_requests", "Attempts at a version of an expert.", _VERSION, _CAPPED
)
VERSION_ROWS = _counter(
    "router_version_rows", "(Row, slot) pairs that a version answered.", _VERSION, _CAPPED
)
VERSION_NONFINITE = _counter(
    "router_version_nonfinite_rows",
    "Rows of its answers that are not finite although what came in was.",
    _VERSION,
    _CAPPED,
)
VERSION_NORM = _counter(
    "router_version_norm",
    "L2 norms of the rows that it answered, summed; of a version whose norms are finite.",
    _VERSION,
    _CAPPED,
)
VERSION_ERRORS = _counter(
    "router_version_errors",
    "Attempts at a version without a usable answer; only causes seen, all of what is on trial.",
    (*_VERSION, "cause"),
    f"5·V at most, of at most {MAX_EXPERTS} versions",
)
EXPERT_RUNG_ROWS = _counter(
    "router_expert_rung_rows",
    "(Row, slot) pairs chosen for an expert that a rung of the ladder answered; only those seen.",
    (*_MIXTURE, "expert", "rung"),
    f"6·E at most, of at most {MAX_EXPERTS} pairs of expert and rung",
)
TRIAL_LATENCY = _seconds(
    "router_version_latency", "Time of attempts, of versions on trial.", _VERSION, "19·T"
)
TRIAL_PAIRS = _counter(
    "router_version_session_pairs",
    "(Row, slot) pairs of sessions on the version, over all layers and experts, of versions on "
    "trial; only sessions whose version chance drew.",
    _VERSION,
    "T",
)
TRIAL_OVERFLOW = _counter(
    "router_version_overflow_pairs",
    "How many of them a capacity of 1.2 k T / E would drop; none is dropped.",
    _VERSION,
    "T",
)
SHADOW_REQUESTS = _counter(
    "router_version_shadow_requests", "Copies sent to a version on trial.", _VERSION, "T"
)
SHADOW_ROWS = _counter(
    "router_version_shadow_rows", "Rows of copies that it answered.", _VERSION, "T"
)
SHADOW_ERRORS = _counter(
    "router_version_shadow_errors", "Copies that got no answer.", _VERSION, "T"
)

GATE_REQUESTS = _counter(
    "gate_requests", "Requests of live sessions that a gate version chose for.", _GATE, "G"
)
GATE_FAILURES = _counter("gate_failed_requests", "Those that got no answer.", _GATE, "G")
GATE_MASS = _counter("gate_mass", "Gate weight of answered rows.", _GATE, "G")
GATE_LOST = _counter("gate_lost_mass", "What of it was answered by a degraded rung.", _GATE, "G")
GATE_LATENCY = _seconds(
    "gate_request_duration",
    "Time of requests that a gate version chose for, of versions on trial.",
    _GATE,
    "19·T",
)
LAYER_ROWS = _counter("gate_rows", "Rows that a gate version chose for.", _LAYER, _PER_LAYER)
LAYER_PAIRS = _counter("gate_pairs", "(Row, slot) pairs that it chose.", _LAYER, _PER_LAYER)
LAYER_OVERFLOW = _counter(
    "gate_overflow_pairs",
    "Pairs that a capacity of 1.2 k T / E would drop; none is dropped.",
    _LAYER,
    _PER_LAYER,
)
LAYER_SCORED = _counter(
    "gate_scored_rows",
    "Rows whose entropy is known: those that a router applied the gate to.",
    _LAYER,
    _PER_LAYER,
)
LAYER_ENTROPY = _counter(
    "gate_entropy",
    "Entropy of the gate's probabilities in bits, summed over the scored rows.",
    _LAYER,
    _PER_LAYER,
)
IMBALANCE = _gauge(
    "gate_imbalance_ratio",
    "Pairs of the most loaded expert over those of the mean one, in the last whole period of a "
    "minute or more; none where no rows came.",
    _LAYER,
    _PER_LAYER,
    "ratio",
)
LOAD_ENTROPY = _gauge(
    "gate_load_entropy",
    "Entropy, in bits, of the experts' shares of the pairs in that period; log2 E where all are "
    "alike.",
    _LAYER,
    _PER_LAYER,
)
SHADOWED_ROWS = _counter(
    "gate_shadow_rows",
    "Live rows that a candidate was compared with the stable version on.",
    _LAYER,
    "T·L",
)
SHADOW_OVERLAP = _counter(
    "gate_shadow_overlap",
    "Jaccard index of the experts that the two chose, summed over these rows.",
    _LAYER,
    "T·L",
)
SHADOW_DIVERGENCE = _counter(
    "gate_shadow_divergence",
    "Kullback-Leibler divergence of the candidate from the stable version in bits, summed over "
    "them.",
    _LAYER,
    "T·L",
)
EXPERT_PAIRS = _counter(
    "gate_expert_pairs",
    "Pairs that a gate version chose for an expert, over all layers.",
    (*_GATE, "expert"),
    f"G·E, at most {MAX_EXPERTS}",
)
CELL_PAIRS = _counter(
    "gate_cell_pairs",
    "Pairs by layer and expert. Where there are many, and without --metrics-detail Full, only of "
    "those farthest from an even share, or whose share moved most, in the last period.",
    (*_LAYER, "expert"),
    f"G·L·E up to {MAX_CELLS}, beyond it {MOVING_CELLS}; all of them with Full",
)

FAMILIES: Final[tuple[Family, ...]] = tuple(
    value for value in globals().values() if isinstance(value, Family)
)
