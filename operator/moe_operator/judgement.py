"""All that is known for and against a candidate in its step, and what of it holds a raise up.

Only data and the order in which verdicts count: objections first, then what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_operator.reason import Reason
from moe_operator.verdict import Tier, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict and what it is of.

    `stalled` where time alone will not decide it; `barred` says what around the candidate forbids
    to go on, whatever is known of itself. `late` where it holds up only what ends the comparison of
    versions: the raise to all sessions, and the promotion.
    """

    tier: Tier
    name: str
    verdict: Verdict
    stalled: bool = False
    late: bool = False
    barred: Reason | None = None

    @property
    def state(self) -> str:
        """Pass, Fail or Waiting."""
        passed = self.verdict.passed
        return "Waiting" if passed is None else "Pass" if passed else "Fail"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The findings on one candidate, cheapest first."""

    findings: tuple[Finding, ...] = ()

    @property
    def objection(self) -> Verdict | None:
        """The first finding against the candidate: it is taken back."""
        return next((f.verdict for f in self.findings if f.verdict.passed is False), None)

    def missing(self, weight: int) -> Finding | None:
        """Return what the raise to this weight still waits for: first what bars it at all."""
        waits = sorted((f for f in self.findings if f.verdict.passed is None), key=_free)
        return next((f for f in waits if weight >= 100 or not f.late), None)

    def of(self, tier: Tier, name: str) -> Verdict | None:
        """Return the verdict of that name; queries have names that people chose."""
        named = (f.verdict for f in self.findings if (f.tier, f.name) == (tier, name))
        return next(named, None)


def _free(finding: Finding) -> bool:
    return finding.barred is None
