"""How many replicas an Expert is to have: as its spec says, or as many as its load asks for.

Where the load decides, the number is nowhere but in the Deployment of the stable version: a new
operator finds it there, and `spec.replicas` is only what is begun with. In a rollout, of the
expert or of a gate that knows it, it is not lowered. It writes nothing and knows no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from moe_core.rows import ExpertRow, GateRow
from moe_operator.fit import on_trial
from moe_operator.intent import Note
from moe_operator.labels import short
from moe_operator.reason import Reason, moment, written
from moe_operator.scaling import History, Size, scale
from moe_operator.seen import Seen
from moe_operator.spec import ExpertSpec, Meta
from moe_operator.turn import Turn

_LONGEST: Final = 1024  # characters of a sentence in status
_NO_NODE: Final = "Unschedulable"


def sized(
    expert: ExpertSpec, row: ExpertRow, seen: Seen, history: History, tried: bool, now: datetime
) -> tuple[ExpertSpec, Size | None]:
    """Return the expert with as many replicas as there are to be; None where the spec decides.

    `tried` says that a gate that knows it is on trial. One that sleeps is given as if it were
    awake: whether it may sleep on is for `settled` to say, when its step is known.
    """
    spec = expert.autoscaling
    if spec is None:
        return expert, None
    there = spec.clamp(_there(expert, row, seen))
    held = tried or _changing(expert, row, now)
    pods = frozenset(pod.name for pod in seen.pods if pod.ready)
    full = next((pod.problem for pod in seen.pods if pod.problem.startswith(_NO_NODE)), "")
    sleeper = row.stable.sha256 if row.stable is not None and not there else ""
    found = Size(spec, there, there if held else spec.low, pods, full=full, sleeper=sleeper)
    replicas, why = scale(history, found, now)
    if replicas != there:
        found = replace(found, replicas=replicas, why=f"{there} → {replicas}: {why}")
    return replace(expert, replicas=max(1, replicas)), found


def settled(turn: Turn, needed: bool) -> Turn:
    """Return a turn as it is where its expert sleeps, or wakes for what is to become of it.

    It sleeps only where nothing is under way or asked for; `needed` says that a gate will want it.
    """
    size, case, stable = turn.size, turn.case, turn.row.stable
    if size is None or size.replicas:
        return turn
    if turn.at_rest and stable is not None and not needed:
        asleep = replace(case, expert=replace(case.expert, replicas=0))
        return replace(turn, case=asleep, size=replace(size, sleeper=stable.sha256))
    why = "0 → 1: it or another version of it is needed" if size.sleeper else ""
    return replace(turn, size=replace(size, replicas=1, why=why, sleeper=""))


def _there(expert: ExpertSpec, row: ExpertRow, seen: Seen) -> int:
    """Return the pods asked for: of stable, or of what it replaced, while that has more.

    A version that was promoted early has fewer until its Deployment follows. Where none is asked
    for, and it may not sleep, it begins as its spec says.
    """
    versions = (v for v in (row.stable or expert.version, row.previous) if v is not None)
    digests = [short(version.sha256) for version in versions]
    there = [seen.replicas[digest] for digest in digests if digest in seen.replicas]
    sleeps = expert.autoscaling is not None and not expert.autoscaling.low
    return max(there, default=0) or (0 if there and sleeps else expert.replicas)


def _changing(expert: ExpertSpec, row: ExpertRow, now: datetime) -> bool:
    """Return whether a rollout is under way, or its loser is still warm for a way back."""
    rollout = row.rollout
    if rollout is None or row.stable is None:
        return False
    warm_until = moment(rollout.step_began) + timedelta(seconds=expert.rollout.scale_down_delay_s)
    return not rollout.outcome.ended or row.previous is not None or now < warm_until


def known_to_trials(gates: Iterable[GateRow]) -> frozenset[str]:
    """Return the experts that a gate on trial knows, or one whose loser is still warm."""
    tried = (gate for gate in gates if on_trial(gate) or gate.previous is not None)
    return frozenset(expert_id for gate in tried for expert_id in gate.experts)


def told(meta: Meta, found: Size, now: datetime) -> dict[str, Any]:
    """Return what status says: the number, since when, why it changed last, and what it lacks.

    As long as the number is the same it is left alone, however the load goes.
    """
    before = meta.status.get("autoscaling") or {}
    full = {"full": found.full[:_LONGEST]} if found.full else {}
    if before.get("replicas") == found.replicas and not found.why:
        return {key: value for key, value in before.items() if key != "full"} | full
    spec = found.autoscaling
    why = found.why or f"of {spec.low} to {spec.high}; the load asked for no other number yet"
    return {"replicas": found.replicas, "since": written(now), "message": why[:_LONGEST], **full}


def resized(turns: Iterable[Turn]) -> Iterator[Note]:
    """Tell of experts that get another number of replicas for their load."""
    for turn in turns:
        if turn.size is not None and turn.size.why:
            name, reason = turn.case.expert.meta.name, Reason.SCALED.value
            yield Note("Expert", name, False, reason, turn.size.why)
