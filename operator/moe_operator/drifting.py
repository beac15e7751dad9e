"""What follows from how routing stands: conditions of a Gate, and what holds a rollout up.

A drift concerns the rollout of the gate itself, and those of the experts that it lists: their
verdicts would be about other traffic than the versions will serve, or they are its reason. What is
served already is never touched. Decides nothing about weights: that is `canary`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from moe_core.table import Table
from moe_operator.conditions import Condition, said_before
from moe_operator.drift import Detector, History, Watched, summary
from moe_operator.drift_spec import OnAlarm
from moe_operator.judgement import Finding
from moe_operator.reason import Reason, Why
from moe_operator.spec import GateSpec, Meta
from moe_operator.verdict import Tier, Verdict

NAME: Final = "drift"
_REASONS: Final = {
    Detector.DRIFTING: Reason.ROUTING_SHIFTED,
    Detector.COLLAPSED: Reason.FEW_EXPERTS_IN_USE,
    Detector.OVERFLOWING: Reason.BEYOND_CAPACITY,
}


def watched(gates: Iterable[GateSpec], table: Table | None) -> tuple[Watched, ...]:
    """Return the stable versions of gates whose spec says that their routing is looked at."""
    rows = {} if table is None else {row.name: row.stable for row in table.gates}
    return tuple(
        Watched(gate.meta.name, stable.version, stable.sha256, stable.experts, gate.drift)
        for gate in gates
        if gate.drift is not None and (stable := rows.get(gate.meta.name)) is not None
    )


def drift_findings(
    of: Iterable[Watched], histories: Mapping[tuple[str, str], History]
) -> Iterator[Finding]:
    """Give what the routing of these gates says of a rollout that it concerns."""
    for one in of:
        if one.spec.on_drift is not OnAlarm.REPORT and any(one.detectors):
            yield _finding(one, histories.get(one.place, History()))


def _finding(of: Watched, history: History) -> Finding:
    who = f"Gate {of.gate}"
    if history.alarms:
        said = "; ".join(history.alarms.values())
        back = of.spec.on_drift is OnAlarm.ROLL_BACK
        verdict = Verdict(False if back else None, f"{who} drifts: {said}")
        return Finding(Tier.SANITY, NAME, verdict, barred=None if back else Reason.DRIFTING)
    if not history.whole_window:
        said = f"{history.rows} of {of.spec.window_rows} rows of {who} compared with its baseline"
        return Finding(Tier.SANITY, NAME, Verdict(None, said))
    return Finding(Tier.SANITY, NAME, Verdict(True, f"{who}: {summary(history, of)}"))


def drift_conditions(meta: Meta, of: Watched, history: History) -> Iterator[Condition]:
    """Give a condition for each detector that the spec asks for.

    Until a whole window is seen, what was said before stands: an operator that starts anew has
    seen nothing else.
    """
    known, possible = said_before(meta, Detector), set(of.detectors)
    if of.spec.baselines and Detector.DRIFTING not in possible:
        said = f"no baseline is of {of.version} ({of.sha256[:10]}), which is served: record one"
        why = Why(Reason.BASELINE_MISSING, said)
        yield Condition(Detector.DRIFTING.value, None, why, lasting=True)
    for detector in Detector:
        if detector not in possible:
            continue
        if detector in history.alarms:
            why = Why(_REASONS[detector], history.alarms[detector])
            yield Condition(detector.value, True, why, lasting=True)
        elif history.whole_window:
            why = Why(Reason.WITHIN_LIMITS, summary(history, of))
            yield Condition(detector.value, False, why, lasting=True)
        elif detector in known:
            yield known[detector]
        else:
            why = Why(Reason.TOO_FEW_ROWS, f"fewer than {of.spec.window_rows} rows were seen")
            yield Condition(detector.value, None, why, lasting=True)
