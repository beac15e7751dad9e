"""Judges how the stable version of an expert does, in a window of the attempts at it.

Two detectors: attempts give no usable answer (`Failing`), and answers have another size than they
had at first (`NormShifted`). A version never changes, so its mean norm is compared with that of
its own first window. An alarm ends when what is seen is well below the limit, so that it does not
come and go. A total function of sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Final

from moe_operator.health_spec import HealthSpec
from moe_operator.spec import Meta

# A window is this many pieces; the oldest goes when a new one is full.
_PIECES: Final = 8
# How sure it must be that more than the limit fails: one look in 2,000 is wrong by chance.
_Z: Final = NormalDist().inv_cdf(1 - 0.0005)
# Fewer failures than these tell nothing.
_FEWEST: Final = 10
# An alarm ends below this share of its limit.
_OVER: Final = 0.8


class Ailment(StrEnum):
    """What is looked for; the names are those of the conditions."""

    FAILING = "Failing"
    NORM_SHIFTED = "NormShifted"


@dataclass(frozen=True, slots=True)
class Sums:
    """What was counted: attempts, those without a usable answer, and L2 norms of answered rows."""

    attempts: int = 0
    errors: int = 0
    rows: int = 0
    norm: float = 0.0

    def plus(self, other: Sums, sign: int = 1) -> Sums:
        """Return the sum; with sign −1 the difference."""
        return Sums(
            self.attempts + sign * other.attempts,
            self.errors + sign * other.errors,
            self.rows + sign * other.rows,
            self.norm + sign * other.norm,
        )

    @property
    def mean_norm(self) -> float | None:
        """The mean norm of an answered row; None where there is none, or none that is finite."""
        mean = self.norm / self.rows if self.rows else math.nan
        return mean if math.isfinite(mean) and mean > 0 else None


@dataclass(frozen=True, slots=True)
class Attended:
    """The stable version of an Expert that is looked at; `meta` is of its object."""

    version: str
    sha256: str
    spec: HealthSpec
    meta: Meta = field(compare=False)

    @property
    def name(self) -> str:
        return self.meta.name

    @property
    def place(self) -> tuple[str, str]:
        return self.name, self.sha256

    @property
    def kept(self) -> Mapping[str, Any]:
        """What the status keeps of this version; nothing where it is about another."""
        kept: Mapping[str, Any] = self.meta.status.get("health", {})
        return kept if kept.get("sha256") == self.sha256 else {}

    @property
    def known_norm(self) -> float | None:
        """The mean norm of its first window, where that is known from before."""
        norm = self.kept.get("meanNorm")
        return None if norm is None else float(norm)

    @property
    def ailments(self) -> Iterator[Ailment]:
        """What is looked for."""
        if self.spec.max_error_percent is not None:
            yield Ailment.FAILING
        if self.spec.max_norm_change_percent is not None:
            yield Ailment.NORM_SHIFTED


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one version, in memory only.

    `pieces` are full, the oldest first, `last` is being filled, `whole` is the sum of all of them.
    `whole_window` once so many attempts were seen. `alarms` say why; `norm` is what the mean norm
    is compared with, None until a whole window was seen.
    """

    pieces: tuple[Sums, ...] = ()
    last: Sums = Sums()
    whole: Sums = Sums()
    whole_window: bool = False
    alarms: Mapping[Ailment, str] = field(default_factory=dict)
    norm: float | None = None


def remember(history: History, came: Sums, of: Attended) -> History:
    """Return the history with what came since, and what it says now."""
    pieces, last, whole = history.pieces, history.last.plus(came), history.whole.plus(came)
    if last.attempts * _PIECES >= of.spec.window_attempts:
        pieces, last = (*pieces, last), Sums()
    if len(pieces) > _PIECES:
        whole, pieces = whole.plus(pieces[0], -1), pieces[1:]
    full = history.whole_window or whole.attempts >= of.spec.window_attempts
    norm = history.norm if history.norm is not None or not full else whole.mean_norm
    moved = replace(history, pieces=pieces, last=last, whole=whole, whole_window=full, norm=norm)
    said = {Ailment.FAILING: _failing(moved, of), Ailment.NORM_SHIFTED: _shifted(moved, of)}
    return replace(moved, alarms={ailment: why for ailment, why in said.items() if why})


def _failing(history: History, of: Attended) -> str:
    """Return why too many attempts fail: surely so, by a bound of the normal approximation."""
    limit, seen = of.spec.max_error_percent, history.whole
    if limit is None or not seen.attempts:
        return ""
    share = seen.errors / seen.attempts
    if Ailment.FAILING in history.alarms:
        over = 100 * share >= limit * _OVER
    else:
        error = _Z * math.sqrt(share * (1 - share) / seen.attempts)
        over = seen.errors >= _FEWEST and 100 * (share - error) > limit
    if not over:
        return ""
    return (
        f"{100 * share:.1f}% of the last {seen.attempts} attempts at {of.version} gave no usable "
        f"answer; maxErrorPercent is {limit}"
    )


def _shifted(history: History, of: Attended) -> str:
    """Return why answers have another size than they had."""
    limit, mean, first = of.spec.max_norm_change_percent, history.whole.mean_norm, history.norm
    before = history.alarms.get(Ailment.NORM_SHIFTED, "")
    if limit is None or first is None or not history.whole_window:
        return ""
    if mean is None:
        return before
    change = 100 * abs(mean / first - 1)
    if change <= (limit * _OVER if before else limit):
        return ""
    return (
        f"the mean norm of what {of.version} answers is {mean:.3g} in the last "
        f"{history.whole.attempts} attempts, and was {first:.3g} at first; "
        f"maxNormChangePercent is {limit}"
    )


def summary(history: History) -> str:
    """Say how things are where nothing is wrong."""
    seen, mean = history.whole, history.whole.mean_norm
    said = f"{seen.errors} of the last {seen.attempts} attempts gave no usable answer"
    return said if mean is None else f"{said}; the mean norm of its answers is {mean:.3g}"
