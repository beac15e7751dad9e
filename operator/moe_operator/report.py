"""All statuses of one pass, each only where it differs from what the object carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from moe_core.table import Table
from moe_operator import labels
from moe_operator.admission import Admission
from moe_operator.attending import attended, health_status
from moe_operator.conditions import conditions
from moe_operator.drift import History
from moe_operator.drifting import drift_conditions, watched
from moe_operator.gates import Gates
from moe_operator.health import History as HealthHistory
from moe_operator.intent import Status
from moe_operator.memory import remember
from moe_operator.override_spec import OverrideSpec, TargetKind
from moe_operator.overrides import known_versions, waiting_status
from moe_operator.overrides import status_of as override_status
from moe_operator.pod import reserved_env
from moe_operator.reach import Reach
from moe_operator.reason import Reason
from moe_operator.recount import recounted
from moe_operator.restore import Restored, Restoring
from moe_operator.sizing import told
from moe_operator.spec import Meta, MixtureSpec
from moe_operator.standing import Counts, mixture_status
from moe_operator.status import expert_status, gate_status, refused_status
from moe_operator.turn import Turn
from moe_operator.world import PodSeen, World

# (kind, object, status as it is to be)
Entry = tuple[str, Meta, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """The statuses to write, the Mixture's last, and when one is due again without an event."""

    statuses: tuple[Status, ...]
    again_at: datetime | None


@dataclass(frozen=True)
class Outlook:
    """The result of one pass, before it is carried out; `table` is the one that then holds."""

    world: World
    mixture: MixtureSpec
    table: Table
    turns: tuple[Turn, ...]
    of_gates: tuple[Turn, ...]
    admission: Admission
    gates: Gates
    reach: Reach
    restored: Restored

    @property
    def now(self) -> datetime:
        return self.reach.now

    @cached_property
    def listed(self) -> frozenset[str]:
        """The experts that a gate names, by the new table or by the one before it."""
        stored = self.world.table
        gates = (*self.table.gates, *(stored.table.gates if stored else ()))
        return frozenset(expert_id for gate in gates for expert_id in gate.experts)


def report(outlook: Outlook) -> Report:
    """Return the statuses to write; the Mixture's sums up the others."""
    experts = list(_experts(outlook))
    entries = [
        *experts,
        *_refused(outlook),
        *_gates(outlook),
        *_overrides(outlook),
        ("Mixture", outlook.mixture.meta, _mixture(outlook, experts)),
    ]
    statuses, times = [], []
    for kind, meta, wanted in entries:
        status, due = recounted(meta.status, dict(wanted), outlook.now)
        if due is not None:
            times.append(due)
        if status != meta.status:
            statuses.append(Status(kind, meta.name, status))
    return Report(tuple(statuses), min(times, default=None))


def _experts(outlook: Outlook) -> Iterator[Entry]:
    attending = {of.name: of for of in attended(outlook.world.experts, outlook.table)}
    for turn in outlook.turns:
        meta, row = turn.case.expert.meta, turn.row
        in_use = row.expert_id in outlook.listed
        status = expert_status(turn.case, row, turn.decision.why, turn.seen, in_use)
        limit = turn.case.expert.history_limit
        history = remember(meta, (turn.before.rollout, row.rollout), limit)
        sized = {} if turn.size is None else {"autoscaling": told(meta, turn.size, outlook.now)}
        if meta.name in attending:
            of = attending[meta.name]
            seen = outlook.world.checkups.get(of.place, HealthHistory())
            more, status["health"] = health_status(of, seen)
            status["conditions"] += conditions(meta, outlook.now, more)
        yield "Expert", meta, {**status, **sized, "history": history}


def _refused(outlook: Outlook) -> Iterator[Entry]:
    """Give the objects that do not count; one that cannot be read may still be served."""
    refused, gates = outlook.admission.refused, outlook.gates.whys
    named = {row.name for row in outlook.table.experts if row.expert_id in outlook.listed}
    named |= {gate.name for gate in outlook.table.gates}
    unread = [(invalid.kind, invalid.meta) for invalid in outlook.world.invalid]
    for kind, meta in [*(("Expert", e.meta) for e in outlook.world.experts), *unread]:
        why = {"Expert": refused, "Gate": gates}.get(kind, {}).get(meta.name)
        if why is not None and not meta.deleting:
            yield kind, meta, refused_status(meta, why, outlook.now, meta.name in named)
    for invalid in outlook.world.invalid:
        if invalid.kind == "Override":
            generation = invalid.meta.generation
            said = {"state": "Refused", "message": invalid.sentence}
            yield "Override", invalid.meta, {**said, "observedGeneration": generation}


def _gates(outlook: Outlook) -> Iterator[Entry]:
    watch = {of.gate: of for of in watched(outlook.world.gates, outlook.table)}
    for turn in outlook.of_gates:
        meta, limit = turn.case.expert.meta, turn.case.expert.history_limit
        in_use = outlook.gates.row(meta.name) is not None
        history = remember(meta, (turn.before.rollout, turn.row.rollout), limit)
        status = gate_status(turn.case, turn.row, turn.decision.why, in_use)
        if meta.name in watch:
            own = watch[meta.name]
            drift = outlook.world.drifts.get(own.place, History())
            more = drift_conditions(meta, own, drift)
            status["conditions"] += conditions(meta, outlook.now, more)
        yield "Gate", meta, {**status, "history": history}


def _overrides(outlook: Outlook) -> Iterator[Entry]:
    turns = {
        (turn.case.expert.kind.value, turn.case.expert.meta.name): turn
        for turn in (*outlook.turns, *outlook.of_gates)
    }
    for override in outlook.world.overrides:
        if override.kind is not TargetKind.MIXTURE and not override.meta.deleting:
            turn = turns.get((override.kind.value, override.target))
            yield "Override", override.meta, _override(override, turn, outlook)
    decided = {turn.case.expert.meta.name: turn.case.decided.serve for turn in outlook.turns}
    restoring = Restoring(outlook.world, outlook.table, outlook.restored, decided)
    for override, status in restoring.statuses():
        yield "Override", override.meta, status


def _override(override: OverrideSpec, turn: Turn | None, outlook: Outlook) -> Mapping[str, Any]:
    """Return the status of an Override of an Expert or Gate, also of one that does not count."""
    if turn is not None:
        expert, decided = turn.case.expert, turn.case.decided
        known, limit = known_versions(turn.before, turn.lineage.revisions), expert.history_limit
        history = remember(expert.meta, (turn.before.rollout, turn.row.rollout), limit)
        return override_status(override, expert, decided, turn.row, known, history)
    refused = outlook.admission.refused
    if override.kind is TargetKind.GATE:
        refused = outlook.gates.whys
    return waiting_status(override, refused.get(override.target))


def _mixture(outlook: Outlook, experts: list[Entry]) -> Mapping[str, Any]:
    routers = outlook.mixture.routers
    gated = {layer for gate in outlook.table.gates for layer in gate.layers}
    whys = {
        **{turn.case.expert.meta.name: turn.decision.why for turn in outlook.turns},
        **outlook.gates.whys,
    }
    resting = {name for name, why in whys.items() if why.reason in _AT_REST or why.reason.stuck}
    counts = Counts(
        epoch=outlook.table.epoch,
        experts=len(experts),
        experts_ready=sum(_holds(status, "Ready") for _, _, status in experts),
        experts_degraded=sum(_holds(status, "Degraded") for _, _, status in experts),
        experts_starting=sum(
            _holds(status, "Degraded", Reason.PODS_NOT_READY) for _, _, status in experts
        ),
        routers_ready=len(outlook.reach.ready),
        routers_kept=outlook.reach.kept,
        routers_problem=next((p.problem for p in _routers(outlook.world) if p.problem), ""),
        layers_without_gate=tuple(
            layer for layer in range(outlook.mixture.layers) if layer not in gated
        ),
        ignored_env=tuple(
            sorted(
                {
                    *reserved_env(outlook.mixture.workers),
                    *reserved_env(routers.pods),
                    *reserved_env(outlook.mixture.evaluators),
                }
            )
        ),
        refused=tuple(
            f"{kind} {name} was not taken: {said}"
            for (kind, name), said in sorted(outlook.world.refused.items())
        ),
        under_way=tuple(sorted(whys.keys() - resting)),
    )
    return mixture_status(outlook.mixture, counts, outlook.now)


_AT_REST = frozenset({Reason.COMPLETE, Reason.SCALED_TO_ZERO})


def _routers(world: World) -> Iterator[PodSeen]:
    return (p for p in world.pods if p.component == labels.ROUTER and not p.deleting)


def _holds(status: Mapping[str, Any], kind: str, reason: Reason | None = None) -> bool:
    return any(
        c["type"] == kind and c["status"] == "True" and reason in (None, c["reason"])
        for c in status["conditions"]
    )
