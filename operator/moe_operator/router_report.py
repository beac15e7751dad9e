"""What a router says of itself: its epoch and links, what it counted, and how its gates are.

Only data; what follows from it is judged in `verdict` and `gate_verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from moe_core.worker_load import WorkerLoad
from moe_operator.drift import Tallies
from moe_operator.sequential import Arm


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one expert version at one router, cumulative since the router's incarnation.

    `requests` are attempts, `errors` those of them that gave no usable answer. What begins with
    `shadow` is of copies that were only counted, and is not in the other fields. `session_pairs`
    are the (row, slot) pairs that sessions on this version sent to any expert, `overflow_pairs`
    those of them beyond an expert's capacity, `overflow_sessions` the sessions that began in them.
    `mass` is the weight that a gate's version gave to rows, `lost_mass` that of it that another
    function answered.
    """

    requests: int = 0
    rows: int = 0
    errors: int = 0
    nonfinite_rows: int = 0
    norm_sum: float = 0.0
    latency_counts: tuple[int, ...] = ()
    shadow_requests: int = 0
    shadow_rows: int = 0
    shadow_errors: int = 0
    shadow_nonfinite_rows: int = 0
    shadow_norm_sum: float = 0.0
    session_pairs: int = 0
    overflow_pairs: int = 0
    overflow_sessions: int = 0
    mass: float = 0.0
    lost_mass: float = 0.0
    waiting_rows: int = 0  # now: of an expert that sleeps, and is to be waited for


class Measure(StrEnum):
    """What clients report of a session: next-token loss in bits, or a score."""

    LOSS = "Loss"
    SCORE = "Score"


@dataclass(frozen=True, slots=True)
class OutcomeSum:
    """What sessions on one version, begun under one weight of its rollout, were worth in sum."""

    expert_id: str  # empty where it is of a gate
    sha256: str
    since_epoch: int  # of that weight
    measure: Measure
    arm: Arm
    gate: str = ""


class Loading(StrEnum):
    """How far a router is with a gate."""

    FETCHING = "Fetching"
    LOADED = "Loaded"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class GateLoading:
    """How far a router is with one gate's artifact, and why it is no further."""

    state: Loading
    message: str = ""


@dataclass(frozen=True, slots=True)
class LayerShadow:
    """Sums over rows of one layer that a gate's candidate scored beside the stable one.

    `overlap` is of Jaccard indexes, `divergence` and both entropies in bits. `pairs` are the
    chosen (row, slot) pairs by expert, in the order of the candidate's list, `base_pairs` in that
    of the stable one's.
    """

    layer: int
    rows: int
    overlap: float
    divergence: float
    entropy: float
    base_entropy: float
    pairs: tuple[int, ...]
    base_pairs: tuple[int, ...]
    overflow_pairs: int = 0
    base_overflow_pairs: int = 0


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a router saw of a gate's candidate beside the stable version, since it began."""

    sha256: str
    base_sha256: str
    layers: tuple[LayerShadow, ...]


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What a router said last, and when."""

    pod: str
    incarnation: str
    at: datetime
    table_uid: str
    epoch: int
    latency_bounds_us: tuple[int, ...]
    # sha256 -> workers with a live link that offer it
    workers: Mapping[str, tuple[str, ...]]
    # Of the versions that were asked for, zeros where one was never used.
    versions: Mapping[str, Counters]
    outcomes: tuple[OutcomeSum, ...] = ()
    # sha256 of what workers offered whose links are silent for the moment
    silent: frozenset[str] = frozenset()
    # By sha256 of what the table names.
    gates: Mapping[str, GateLoading] = field(default_factory=dict)
    shadows: tuple[Shadow, ...] = ()
    # Whether this report or an earlier one of the pod named a table; its disk may have a copy.
    had_table: bool = False
    # It started by its own copy of the table, and has not heard from the API server since.
    kept: bool = False
    # By worker, of those whose links are live. They change all the time, which is no news.
    loads: Mapping[str, WorkerLoad] = field(default_factory=dict, compare=False)
    # What gates chose, by sha256 of those that are watched; neither is that news.
    tallies: Mapping[str, Tallies] = field(default_factory=dict, compare=False)
    # What the versions of experts that are attended counted, by sha256; that neither.
    attended: Mapping[str, Counters] = field(default_factory=dict, compare=False)

    @property
    def may_route(self) -> bool:
        """Whether the pod has a table, or had one that it may take up when it starts anew."""
        return self.had_table or bool(self.table_uid)
