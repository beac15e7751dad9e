"""The metrics of the operator: names, labels and units. Only data; `collect` reads their values.

The engine's have the names of controller-runtime's, which dashboards know. What is told of objects
comes from whoever leads alone, so that sums are right. `mixture_namespace` is not `namespace`,
which Prometheus sets to that of the operator itself.

In `series`: M mixtures, E Experts, G Gates, V versions with a Deployment, R rollouts under way.
"""

from __future__ import annotations

from typing import Final

from moe_core.metrics import Family, Kind, Labels

_OF: Final = ("mixture_namespace", "mixture")
_EXPERT: Final = (*_OF, "expert")
_OBJECT: Final = (*_OF, "kind", "name")
_ROLLOUT: Final = (*_OBJECT, "version")
_PLACE: Final = (*_OF, "gate", "version", "layer", "context")
_QUEUE: Final = ("name", "controller")


def _gauge(name: str, help_: str, labels: Labels, series: str, unit: str = "") -> Family:
    return Family(name, Kind.GAUGE, help_, labels, unit, series)


RECONCILES = Family(
    "controller_runtime_reconcile",
    Kind.COUNTER,
    "Looks at mixtures by result; requeue is one planned on an old view.",
    ("controller", "result"),
    series="4",
)
RECONCILE_ERRORS = Family(
    "controller_runtime_reconcile_errors", Kind.COUNTER, "Looks that failed.", ("controller",)
)
WORKERS = _gauge(
    "controller_runtime_max_concurrent_reconciles", "Looks at once.", ("controller",), "1"
)
ACTIVE = _gauge("controller_runtime_active_workers", "Looks under way.", ("controller",), "1")
DEPTH = _gauge("workqueue_depth", "Mixtures that wait for a look.", _QUEUE, "1")
ADDS = Family("workqueue_adds", Kind.COUNTER, "Mixtures added to the queue.", _QUEUE)
RETRIES = Family("workqueue_retries", Kind.COUNTER, "Looks to be tried again.", _QUEUE)
QUEUED = Family(
    "workqueue_queue_duration_seconds",
    Kind.HISTOGRAM,
    "Time of mixtures in the queue.",
    _QUEUE,
    "seconds",
    "14",
)
WORKED = Family(
    "workqueue_work_duration_seconds", Kind.HISTOGRAM, "Time of looks.", _QUEUE, "seconds", "14"
)
LEADS = _gauge(
    "leader_election_master_status", "Whether this process leads (1) or waits (0).", ("name",), "1"
)

EPOCH = _gauge("moeops_table_epoch", "Epoch of the routing table as stored.", _OF, "M")
READY = _gauge(
    "moeops_object_ready", "Whether its condition Ready holds (1 or 0).", _OBJECT, "M + E + G"
)
DEGRADED = _gauge(
    "moeops_object_degraded",
    "Whether its condition Degraded holds (1 or 0): less than was asked for.",
    _OBJECT,
    "M + E",
)
STUCK = _gauge(
    "moeops_object_stuck",
    "1 where Progressing is False: it goes no further by itself; the reason says why.",
    (*_OBJECT, "reason"),
    "E + G at most; none where all goes on",
)
ALARM = _gauge(
    "moeops_object_alarm",
    "Whether the condition of a detector that a spec asks for holds (1 or 0): Drifting, Collapsed "
    "or Overflowing of a Gate with spec.drift, Failing or NormShifted of an Expert with "
    "spec.health.",
    (*_OBJECT, "condition"),
    "3·G + 2·E at most",
)
PSI = _gauge(
    "moeops_gate_psi",
    "Population stability index of the rows of a layer, in the last window, against the baseline; "
    "context is what the rows are about, empty for all.",
    _PLACE,
    "G·L·(1 + contexts) of gates with a baseline",
)
PSI_CHANCE = _gauge(
    "moeops_gate_psi_chance",
    "What of it chance alone would give, on average.",
    _PLACE,
    "G·L·(1 + contexts) of gates with a baseline",
)
DRIFT_ROWS = _gauge(
    "moeops_gate_drift_rows", "Rows of a layer in the last window.", (*_OF, "gate", "version"), "G"
)
EXPERT_WANTED = _gauge(
    "moeops_expert_replicas_wanted",
    "Pods that an Expert is to have: by its load where that decides, else spec.replicas.",
    _EXPERT,
    "E",
)
EXPERT_READY = _gauge(
    "moeops_expert_replicas_ready", "Ready pods of its stable version.", _EXPERT, "E"
)
VERSION_WANTED = _gauge(
    "moeops_version_replicas_wanted",
    "Pods that a version is to have now.",
    (*_EXPERT, "version"),
    "V",
)
VERSION_READY = _gauge(
    "moeops_version_replicas_ready", "How many of them are ready.", (*_EXPERT, "version"), "V"
)
ROUTERS_WANTED = _gauge("moeops_router_replicas_wanted", "Routers to be there.", _OF, "M")
ROUTERS_READY = _gauge("moeops_router_replicas_ready", "Routers that are ready.", _OF, "M")
ROLLOUTS = _gauge(
    "moeops_rollouts",
    "Experts or Gates by the outcome of their last rollout.",
    (*_OF, "kind", "outcome"),
    "10·M",
)
STEP = _gauge(
    "moeops_rollout_step", "Step of a rollout under way; 0 is in the dark.", _ROLLOUT, "R"
)
STEPS = _gauge("moeops_rollout_steps", "How many steps it has.", _ROLLOUT, "R")
WEIGHT = _gauge(
    "moeops_rollout_weight_ratio",
    "Share of new sessions that see the candidate, 0 to 1.",
    _ROLLOUT,
    "R",
    "ratio",
)
PAUSED = _gauge(
    "moeops_rollout_paused", "Whether it is paused, by a person or for want of evidence.",
    _ROLLOUT, "R",
)  # fmt: skip
STEP_BEGAN = _gauge(
    "moeops_rollout_step_began_timestamp_seconds",
    "When its step began, unix time.",
    _ROLLOUT,
    "R",
    "seconds",
)
FINDINGS = _gauge(
    "moeops_rollout_findings",
    "Verdicts of its step by tier (Sanity, Service, Quality, Prometheus) and state (Pass, Fail, "
    "Waiting).",
    (*_ROLLOUT, "tier", "state"),
    "12·R at most",
)
CERTIFICATES = _gauge(
    "moeops_certificate_expiry_timestamp_seconds",
    "When a certificate is over that this operator keeps, unix time: of a mixture's part (router, "
    "workers, client), or its own (authority, operator).",
    (*_OF, "part"),
    "3·M + 2 with TLS; none without",
    "seconds",
)
ENDED = Family(
    "moeops_rollouts_ended",
    Kind.COUNTER,
    "Rollouts that ended, by outcome and reason; first versions are none.",
    (*_OF, "kind", "outcome", "reason"),
    series="as many as were seen",
)
DURATION = Family(
    "moeops_rollout_duration_seconds",
    Kind.HISTOGRAM,
    "Time from when a version was asked for until its rollout ended.",
    (*_OF, "kind", "outcome"),
    "seconds",
    "78·M at most",
)

FAMILIES: Final[tuple[Family, ...]] = tuple(
    value for value in globals().values() if isinstance(value, Family)
)
