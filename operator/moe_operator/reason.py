"""The words that conditions, Events and the table's journal use for why something is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Reason(StrEnum):
    """Reasons of conditions; programs may rely on them."""

    # A rollout that is under way.
    STARTED = "Started"
    WEIGHT_RAISED = "WeightRaised"
    CANARY = "Canary"
    EVALUATED = "Evaluated"
    PAUSED = "Paused"
    EVIDENCE_MISSING = "EvidenceMissing"
    DRIFTING = "Drifting"
    UNHEALTHY = "Unhealthy"
    WAITING_FOR_PODS = "WaitingForPods"
    WAITING_FOR_ROUTERS = "WaitingForRouters"
    WAITING_FOR_PREVIOUS = "WaitingForPrevious"
    WAITING_FOR_TURN = "WaitingForTurn"
    WOULD_CONFOUND = "WouldConfound"
    HELD = "Held"
    UNSCHEDULABLE = "Unschedulable"
    UNDER_WAY = "UnderWay"
    # A rollout that has ended.
    COMPLETE = "Complete"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    ARTIFACT_REFUSED = "ArtifactRefused"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    OVERRIDDEN = "Overridden"
    # Whether it serves.
    SERVING = "Serving"
    STARTING = "Starting"
    NOT_ROUTABLE = "NotRoutable"
    SCALED_TO_ZERO = "ScaledToZero"
    ASLEEP = "Asleep"
    NOT_LISTED = "NotListed"
    CONFLICT = "Conflict"
    INVALID_SPEC = "InvalidSpec"
    MIXTURE_MISSING = "MixtureMissing"
    EXPERTS_MISSING = "ExpertsMissing"
    EXPERTS_NOT_READY = "ExpertsNotReady"
    GATE_MISSING = "GateMissing"
    ROUTERS_NOT_READY = "RoutersNotReady"
    SCALED = "Scaled"
    # What is less than asked for.
    AS_WANTED = "AsWanted"
    PODS_MISSING = "PodsMissing"
    PODS_NOT_READY = "PodsNotReady"
    BACKUP_MISSING = "BackupMissing"
    CHILD_REFUSED = "ChildRefused"
    SETTINGS_IGNORED = "SettingsIgnored"
    TABLE_KEPT = "TableKept"
    LAYERS_PENDING = "LayersPending"
    EXPERTS_DEGRADED = "ExpertsDegraded"
    # How routing stands to its baseline and limits.
    ROUTING_SHIFTED = "RoutingShifted"
    FEW_EXPERTS_IN_USE = "FewExpertsInUse"
    BEYOND_CAPACITY = "BeyondCapacity"
    WITHIN_LIMITS = "WithinLimits"
    BASELINE_MISSING = "BaselineMissing"
    TOO_FEW_ROWS = "TooFewRows"
    # How an expert does.
    ATTEMPTS_FAIL = "AttemptsFail"
    ANSWERS_CHANGED = "AnswersChanged"
    TOO_FEW_ATTEMPTS = "TooFewAttempts"

    @property
    def stuck(self) -> bool:
        """True where it goes no further by itself, or not as the spec asks."""
        return self in _STUCK


_STUCK = frozenset(
    {
        Reason.PAUSED,
        Reason.HELD,
        Reason.EVIDENCE_MISSING,
        Reason.DRIFTING,
        Reason.UNHEALTHY,
        Reason.UNSCHEDULABLE,
        Reason.ROLLED_BACK,
        Reason.ABORTED,
        Reason.ARTIFACT_REFUSED,
        Reason.DEADLINE_EXCEEDED,
        Reason.OVERRIDDEN,
        Reason.CONFLICT,
        Reason.INVALID_SPEC,
        Reason.MIXTURE_MISSING,
        Reason.EXPERTS_MISSING,
    }
)


_JOURNAL_LIMIT = 1024
_NAMES = 6  # more of them help nobody


@dataclass(frozen=True, slots=True)
class Why:
    """A reason and the sentence that goes with it."""

    reason: Reason
    message: str

    def __str__(self) -> str:
        """The form of the table's journal, which `parse` reads; bounded, as the table is."""
        return f"{self.reason}: {self.message[:_JOURNAL_LIMIT]}"

    @classmethod
    def parse(cls, text: str, default: Reason) -> Why:
        """Read what `str` wrote; other text is the message of the default reason."""
        word, _, rest = text.partition(": ")
        return cls(Reason(word), rest) if word in set(Reason) else cls(default, text)


def listed(names: Sequence[str]) -> str:
    """Return names as text, the first few of many."""
    shown, more = names[:_NAMES], len(names) - _NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def written(moment: datetime) -> str:
    """Return the moment as RFC 3339 in UTC, to the millisecond."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """Read RFC 3339. Raises ValueError."""
    return datetime.fromisoformat(text)
