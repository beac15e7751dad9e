"""Experts that no gate lists any more: they stay warm for a while, for a quick way back, then go.

One that a gate to come lists is needed again, and gets its pods before that gate is tried out.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from moe_core.rows import ExpertRow
from moe_operator.case import Case
from moe_operator.reason import Reason, Why, moment


def asleep(row: ExpertRow, case: Case) -> bool:
    """Return whether an expert needs no pods, because no gate lists it and its time is over."""
    ends = _ends(row, case)
    return ends is not None and ends <= case.now


def wakes_at(row: ExpertRow, case: Case) -> datetime | None:
    """Return when the pods of what no gate lists go; None where they stay, or have gone."""
    ends = _ends(row, case)
    return ends if ends is not None and ends > case.now else None


def why_idle(row: ExpertRow, case: Case) -> Why | None:
    """Say of an expert that no gate lists it, and what becomes of it; None of others."""
    if _ends(row, case) is None:
        return None
    then = "it has no pods, and may be deleted"
    if not asleep(row, case):
        then = f"its pods go after {case.expert.rollout.scale_down_delay_s} s; it may be deleted"
    return Why(Reason.NOT_LISTED, f"no gate lists {row.expert_id} since {row.idle_since}: {then}")


def _ends(row: ExpertRow, case: Case) -> datetime | None:
    if not row.idle_since or case.awaited:
        return None
    return moment(row.idle_since) + timedelta(seconds=case.expert.rollout.scale_down_delay_s)
