"""How a new version replaces the stable one: steps, evidence, limits and patience.

Reads and nothing else; the defaults are those of the custom resource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from moe_core.document import InvalidDocument, Reader
from moe_operator.evaluation import percent


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a canary: the share of new sessions, and the shortest time it lasts."""

    weight: int
    pause_s: int

    @classmethod
    def read(cls, reader: Reader) -> Self:
        weight = reader.integer("weightPercent", low=1, high=100)
        return cls(weight, reader.integer("pauseSeconds", default=10))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate must not exceed, in percent against stable in the same time.

    0 is "not at all more", as far as that can be told: of errors and overflow surely, of latencies
    by more than a floor. Mean norms differ by chance, so theirs is 1 at least.
    """

    max_error_percent: int = 1
    max_latency_increase_percent: int = 200
    max_norm_increase_percent: int = 900
    max_tail_latency_increase_percent: int = 400
    max_overflow_increase_percent: int = 10  # percentage points
    max_degraded_increase_percent: int = 5  # percentage points; of gates only

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            reader.integer("maxErrorPercent", high=100, default=1),
            reader.integer("maxLatencyIncreasePercent", default=200),
            reader.integer("maxNormIncreasePercent", low=1, default=900),
            reader.integer("maxTailLatencyIncreasePercent", default=400),
            reader.integer("maxOverflowIncreasePercent", high=100, default=10),
            reader.integer("maxDegradedIncreasePercent", high=100, default=5),
        )


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """What a gate on trial must not do otherwise than stable, in any layer; for gates only."""

    max_load_shift_percent: int = 40  # percentage points of tokens
    min_entropy_percent: int = 10
    min_overlap_percent: int = 0
    max_divergence_millibits: int | None = None
    min_rows: int = 256

    @classmethod
    def read(cls, reader: Reader) -> Self:
        divergence = "maxDivergenceMillibits"
        limited = divergence in reader.value
        return cls(
            reader.integer("maxLoadShiftPercent", low=1, high=100, default=40),
            reader.integer("minEntropyPercent", high=100, default=10),
            reader.integer("minOverlapPercent", high=100, default=0),
            reader.integer(divergence, low=1) if limited else None,
            reader.integer("minShadowRows", low=1, default=256),
        )


@dataclass(frozen=True, slots=True)
class OutcomeLimits:
    """How much worse what clients report may be than of stable, and of how many sessions each."""

    max_loss_increase_percent: float = 5.0
    min_sessions: int = 30

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            percent(reader, "maxLossIncrease", "5%"),
            reader.integer("minSessions", low=30, default=30),
        )


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask Prometheus of candidate and stable; lower is better."""

    name: str
    query: str
    stable_query: str
    max_increase_percent: int

    @classmethod
    def read(cls, reader: Reader) -> Self:
        query = reader.text("query")
        return cls(
            reader.text("name"),
            query,
            reader.text("stableQuery", default=query),
            reader.integer("maxIncreasePercent"),
        )


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a new version replaces the stable one."""

    steps: tuple[Step, ...] = (Step(5, 10), Step(25, 10), Step(50, 10), Step(100, 10))
    min_requests: int = 20
    limits: Limits = Limits()
    progress_deadline_s: int = 600
    scale_down_delay_s: int = 30
    evidence_deadline_s: int = 3600
    shadow_percent: int = 0
    outcomes: OutcomeLimits = OutcomeLimits()
    queries: tuple[Query, ...] = ()
    routing: RoutingLimits = RoutingLimits()

    @classmethod
    def read(cls, reader: Reader, shadow_percent: int = 0) -> Self:
        """Read it; `shadow_percent` counts where none is given. Raises InvalidDocument."""
        steps = tuple(Step.read(item) for item in reader.items("steps"))
        analysis = reader.optional_child("analysis") or Reader({}, f"{reader.path}.analysis")
        outcomes = analysis.optional_child("outcomes")
        weights = [step.weight for step in steps]
        if weights != sorted(weights):
            message = f"{reader.path}.steps has the weights {weights}; they must not fall"
            raise InvalidDocument(message)
        return cls(
            steps=steps or Strategy().steps,
            min_requests=reader.integer("minRequests", default=20),
            limits=Limits.read(analysis),
            progress_deadline_s=reader.integer("progressDeadlineSeconds", low=1, default=600),
            scale_down_delay_s=reader.integer("scaleDownDelaySeconds", default=30),
            evidence_deadline_s=reader.integer("evidenceDeadlineSeconds", low=1, default=3600),
            shadow_percent=reader.integer("shadowPercent", high=100, default=shadow_percent),
            outcomes=OutcomeLimits() if outcomes is None else OutcomeLimits.read(outcomes),
            queries=tuple(Query.read(item) for item in analysis.items("prometheus")),
            routing=RoutingLimits.read(analysis),
        )
