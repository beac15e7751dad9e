"""What follows from how stable versions of experts do: conditions, and what holds rollouts up.

An expert that falls ill concerns whatever else is rolling out in its mixture: a gate that sends it
other rows, or an expert before it that gives it others. It concerns no rollout of its own, which
may be the cure, and is judged against the ill one anyway. What is served is never touched. Decides
nothing about weights: that is `canary`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from moe_core.table import Table
from moe_operator.conditions import Condition, said_before
from moe_operator.drift_spec import OnAlarm
from moe_operator.health import Ailment, Attended, History, summary
from moe_operator.judgement import Finding
from moe_operator.reason import Reason, Why
from moe_operator.spec import ExpertSpec
from moe_operator.verdict import Tier, Verdict

NAME: Final = "health"
_REASONS: Final = {
    Ailment.FAILING: Reason.ATTEMPTS_FAIL,
    Ailment.NORM_SHIFTED: Reason.ANSWERS_CHANGED,
}


def attended(experts: Iterable[ExpertSpec], table: Table | None) -> tuple[Attended, ...]:
    """Return the stable versions of experts whose spec says that their health is looked at."""
    wanted = {e.meta.name: (e.health, e.meta) for e in experts if e.health is not None}
    if not wanted or table is None:
        return ()
    return tuple(
        Attended(row.stable.version, row.stable.sha256, *wanted[row.name])
        for row in table.experts
        if row.stable is not None and row.name in wanted
    )


def _known(of: Attended) -> Mapping[str, Condition]:
    """Return the verdicts on this version that its status tells."""
    return said_before(of.meta, Ailment) if of.kept else {}


def health_findings(
    of: Iterable[Attended], histories: Mapping[tuple[str, str], History]
) -> Iterator[tuple[str, Finding]]:
    """Give what these experts, by name, say against a rollout of something else, where they do.

    Until a whole window is seen, what a status says stands.
    """
    for one in of:
        if one.spec.on_alarm is not OnAlarm.REPORT:
            history = histories.get(one.place, History())
            before = _known(one)
            ill = [before[a].why.message for a in one.ailments if a in before and before[a].holds]
            if history.alarms:
                back = one.spec.on_alarm is OnAlarm.ROLL_BACK
                said = "; ".join(history.alarms.values())
                yield one.name, _finding(one, said, False if back else None)
            elif ill and not history.whole_window:
                yield one.name, _finding(one, "; ".join(ill), None)


def _finding(of: Attended, said: str, passed: bool | None) -> Finding:
    verdict = Verdict(passed, f"Expert {of.name} is unhealthy: {said}")
    barred = Reason.UNHEALTHY if passed is None else None
    return Finding(Tier.SANITY, NAME, verdict, barred=barred)


def health_status(
    of: Attended, history: History
) -> tuple[tuple[Condition, ...], Mapping[str, Any]]:
    """Return a condition for each detector that the spec asks for, and what is to be kept."""
    known = _known(of)
    norm = history.norm if history.norm is not None else of.known_norm
    kept: dict[str, Any] = {"sha256": of.sha256}
    if norm is not None:
        kept["meanNorm"] = float(f"{norm:.6g}")
    return tuple(_condition(one, known, of, history) for one in of.ailments), kept


def _condition(
    ailment: Ailment, known: Mapping[str, Condition], of: Attended, history: History
) -> Condition:
    name = ailment.value
    if ailment in history.alarms:
        return Condition(name, True, Why(_REASONS[ailment], history.alarms[ailment]), lasting=True)
    if history.whole_window:
        return Condition(name, False, Why(Reason.WITHIN_LIMITS, summary(history)), lasting=True)
    if name in known:
        return known[name]
    few = f"fewer than {of.spec.window_attempts} attempts were seen"
    return Condition(name, None, Why(Reason.TOO_FEW_ATTEMPTS, few), lasting=True)
