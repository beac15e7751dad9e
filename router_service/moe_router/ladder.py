"""Says what answers next for pairs whose expert did not: one rung at a time, in the table's order.

Where the table has rows wait for an expert that nobody holds, they do before a rung that degrades.
Pure and total. Never proposes a version that the newest table revokes, nor a worker or version
that already failed for these pairs, so that climbing ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from moe_core.rollout import Version
from moe_core.rows import OnCold
from moe_core.table import Rung
from moe_router.cold import Patience
from moe_router.replica import Routable
from moe_router.view import View

NOT_DEGRADED = frozenset({Rung.REPLICA, Rung.STABLE})
MAX_ATTEMPTS = 12


class Cause(StrEnum):
    """Why an attempt gave no usable answer; the words are those of the counters."""

    BROKEN = "Broken"
    DEADLINE = "Deadline"
    REFUSED = "Refused"
    NON_FINITE = "NonFinite"
    UNREACHABLE = "Unreachable"  # nobody could be asked in the first place


@dataclass(frozen=True, slots=True)
class History:
    """What happened so far to pairs that share a fate.

    `failed` are (worker, sha256) that gave no answer, `barred` versions whose answers are not to
    be used, `overloaded` says that the last worker only had too much to do.
    """

    failed: frozenset[tuple[str, str]] = frozenset()
    barred: frozenset[str] = frozenset()
    overloaded: bool = False
    last: Cause | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """Pairs to place: the expert that the gate chose, the session's version, what they met.

    Where it is `forced`, no other version may answer.
    """

    expert_id: str
    pinned: Version | None
    history: History = History()
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the pairs to one of `workers`; `rung` is None where nothing went wrong yet."""

    rung: Rung | None
    expert_id: str
    sha256: str
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """Answer without this expert: RENORMALISE or RESIDUAL."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for somebody to hold the version, so long at most on the router's clock."""

    until_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No rung is left."""


Step = Ask | Leave | Wait | GiveUp


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the ladder stands in: the request's table, the newest one, who can be reached.

    `asking` is false when too little time is left for a worker to answer; `renormalisable` when
    no other chosen expert of the token answers. Without `patience` nothing is waited for.
    """

    view: View
    newest: View
    routable: Routable
    layer: int
    asking: bool = True
    renormalisable: bool = True
    patience: Patience | None = None


def next_step(lost: Lost, around: Surroundings) -> Step:
    """Return what to do next for these pairs."""
    if lost.history.attempts == 0 and lost.pinned is not None:
        first = _ask(None, lost.expert_id, lost.pinned, lost, around)
        if first is not None:
            return first
    wait = waits(lost, around)
    for rung in _rungs(lost, around):
        if wait is not None and rung not in NOT_DEGRADED:
            return wait
        step = _climb(rung, lost, around)
        if step is not None:
            return step
    return wait or GiveUp()


def waits(lost: Lost, around: Surroundings) -> Wait | None:
    """Return until when pairs wait for their version: where nobody holds it, or stable.

    That an expert is to be waited for is said by the newest table. A version that a worker still
    holds was asked and did not answer: that is no sleep.
    """
    row, pinned = around.newest.experts.get(lost.expert_id), lost.pinned
    if around.patience is None or row is None or row.on_cold is not OnCold.WAIT or pinned is None:
        return None
    if lost.forced or lost.history.overloaded or pinned.sha256 in lost.history.barred:
        return None
    if around.newest.revokes(lost.expert_id, pinned.sha256):
        return None
    stable = around.newest.stable(lost.expert_id)
    held = {version.sha256 for version in (pinned, stable) if version is not None}
    if any(around.routable.for_artifact(sha256, around.layer) for sha256 in held):
        return None
    until_s = around.patience.until((lost.expert_id, pinned.sha256))
    return None if until_s is None else Wait(until_s)


def _rungs(lost: Lost, around: Surroundings) -> Sequence[Rung]:
    """Return the rungs for these pairs.

    Overload is no reason to answer worse: then only full answers are looked for. A version that is
    taken back is no failure of anybody: stable answers, whatever the ladder.
    """
    ladder: Sequence[Rung] = around.view.table.failover.ladder
    if lost.forced:
        return [rung for rung in ladder if rung is Rung.REPLICA]
    if lost.pinned is not None and around.newest.revokes(lost.expert_id, lost.pinned.sha256):
        ladder = [Rung.STABLE, *(rung for rung in ladder if rung is not Rung.STABLE)]
    if lost.history.overloaded:
        return [rung for rung in ladder if rung in NOT_DEGRADED]
    return ladder


def _climb(rung: Rung, lost: Lost, around: Surroundings) -> Step | None:
    if rung is Rung.RENORMALISE:
        return Leave(rung) if around.renormalisable else None
    if rung is Rung.RESIDUAL:
        return Leave(rung)
    target = _target(rung, lost, around)
    return None if target is None else _ask(rung, *target, lost, around)


def _target(rung: Rung, lost: Lost, around: Surroundings) -> tuple[str, Version] | None:
    row = around.view.experts.get(lost.expert_id)
    expert_id: str | None = lost.expert_id
    if rung is Rung.REPLICA:
        version = lost.pinned if lost.history.attempts else None
    elif rung is Rung.STABLE:
        version = _stable(lost.expert_id, around)
        if version is not None and not _may_replace(lost, version, around):
            version = None
    elif rung is Rung.BACKUP:
        expert_id = None if row is None else row.backup
        version = None if expert_id is None else _stable(expert_id, around)
    else:
        dense = around.view.dense.get(around.layer)
        expert_id = None if dense is None else dense.expert_id
        version = None if expert_id is None else _stable(expert_id, around)
    return None if expert_id is None or version is None else (expert_id, version)


def _may_replace(lost: Lost, stable: Version, around: Surroundings) -> bool:
    """Return whether stable may answer for a session's version.

    Not where the layer's gate accepts only one of the two: then the session chose by a variant
    that does not know stable's answers. What is taken back goes to stable in any case.
    """
    pinned, gate = lost.pinned, around.view.gates.get(around.layer)
    if pinned is None:
        return True
    if pinned.sha256 == stable.sha256:
        return False
    if around.newest.revokes(lost.expert_id, pinned.sha256) or gate is None:
        return True
    names = [variant.accepts.get(lost.expert_id, ()) for variant in gate.named]
    return all(stable.version in accepted for accepted in names if pinned.version in accepted)


def _stable(expert_id: str, around: Surroundings) -> Version | None:
    """Return the stable version of the request's table, or of the newest where that is revoked."""
    version = around.view.stable(expert_id)
    if version is not None and around.newest.revokes(expert_id, version.sha256):
        return around.newest.stable(expert_id)
    return version


def _ask(
    rung: Rung | None, expert_id: str, version: Version, lost: Lost, around: Surroundings
) -> Ask | None:
    history, sha256 = lost.history, version.sha256
    if not around.asking or history.attempts >= MAX_ATTEMPTS or sha256 in history.barred:
        return None
    if around.newest.revokes(expert_id, sha256):
        return None
    workers = around.routable.for_artifact(sha256, around.layer, history.failed)
    return Ask(rung, expert_id, sha256, workers) if workers else None
