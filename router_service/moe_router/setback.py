"""What an attempt without a usable answer means for its pairs, and what a request says at its end.

Pure: their history grows by it, which the ladder reads.
"""

from __future__ import annotations

from dataclasses import replace

from moe_router.ladder import Cause, Lost, Surroundings
from moe_router.message import Part
from moe_router.refusal import Code, Refused
from moeops.v1.link_pb2 import GroupResult


def cause_of(group: GroupResult) -> Cause:
    expired = group.failure.code == Code.DEADLINE_EXCEEDED.value
    return Cause.DEADLINE if expired else Cause.REFUSED


def after(part: Part, worker: str, cause: Cause, group: GroupResult | None) -> Lost:
    """Return the pairs' history with this attempt in it."""
    history, sha256 = part.lost.history, part.ask.sha256
    full = group is not None and group.failure.code == Code.RESOURCE_EXHAUSTED.value
    barred = {sha256} if cause is Cause.NON_FINITE else set()
    longer = replace(
        history,
        failed=history.failed | {(worker, sha256)},
        barred=history.barred | barred,
        overloaded=full,
        last=cause,
        attempts=history.attempts + 1,
    )
    return replace(part.lost, history=longer)


def again(part: Part) -> Lost:
    """Return the pairs' history with an attempt in it that was answered in vain."""
    history = part.lost.history
    return replace(part.lost, history=replace(history, attempts=history.attempts + 1))


def unreachable(lost: Lost, around: Surroundings) -> Refused:
    """Say why these pairs cannot be answered."""
    what = f"expert {lost.expert_id!r} of layer {around.layer}"
    rungs = ", ".join(around.view.table.failover.ladder) or "no rung"
    history = lost.history
    if history.overloaded:
        text = f"every worker of {what} has more waiting than it takes; try again later"
        return Refused(Code.RESOURCE_EXHAUSTED, text, retry_after_ms=100)
    if history.last is Cause.DEADLINE:
        text = f"{what} gave no answer within the deadline after {history.attempts} attempts"
        return Refused(Code.DEADLINE_EXCEEDED, f"{text} ({rungs})")
    tried = f"after {history.attempts} attempts" if history.attempts else "with its version"
    if lost.forced and lost.pinned is not None:
        what, rungs = f"{what} at the forced version {lost.pinned.sha256}", "Replica"
    text = f"{what} is not reachable {tried}, and the ladder ({rungs}) offers nothing else"
    return Refused(Code.UNAVAILABLE, text, retry_after_ms=100)
