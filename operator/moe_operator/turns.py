"""Takes every expert and gate of a mixture one step further: alone first, then so that they fit.

What each becomes is decided by `rollout`; who fits whom by `pairing`, whose turn it is by `order`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from moe_core.rollout import Version
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_operator.admission import Admission, opening_rows
from moe_operator.attending import attended, health_findings
from moe_operator.case import Case, Decision
from moe_operator.companions import keep_in_step
from moe_operator.drift import Watched
from moe_operator.drifting import drift_findings, watched
from moe_operator.evaluators import evaluate, wanted
from moe_operator.findings import Sources, judge
from moe_operator.fit import Accepted, accepts, draw, on_trial, together
from moe_operator.gate_order import begin_one
from moe_operator.gate_turn import GateTurn
from moe_operator.gate_turns import gate_turns
from moe_operator.gates import Coming, Gates, Surroundings, coming
from moe_operator.held import joined
from moe_operator.joining import join
from moe_operator.judgement import Finding
from moe_operator.leading import Lead, leads
from moe_operator.lineage import trace
from moe_operator.order import begin_in_order
from moe_operator.override_spec import Action
from moe_operator.overrides import because, decide, lifted
from moe_operator.pairing import Experts, Pairs, pair
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why
from moe_operator.restore import Restored
from moe_operator.rollout import advance
from moe_operator.scaling import History
from moe_operator.seen import Seen, by_expert
from moe_operator.sizing import known_to_trials, settled, sized
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.template import Settings, worker_template
from moe_operator.trial import as_row
from moe_operator.turn import Turn
from moe_operator.window import Window
from moe_operator.world import World


@dataclass(frozen=True, slots=True)
class Taken:
    """What becomes of every expert and gate; `of_gates` are in the terms of an expert."""

    turns: tuple[Turn, ...]
    of_gates: tuple[Turn, ...]
    gates: Gates


def take_turns(
    around: Surroundings,
    admission: Admission,
    stored: Table | None,
    windows: Mapping[str, Window],
    restored: Restored,
    settings: Settings,
) -> Taken:
    """Take each one a step further as if it were alone, then let them fit and take their turns."""
    world, mixture, reach = around.world, around.mixture, around.reach
    ids, seen = frozenset(expert.expert_id for expert in admission.experts), by_expert(world)
    ill = tuple(health_findings(attended(world.experts, stored), world.checkups))
    against = tuple(finding for _, finding in ill)
    alone_gates = gate_turns(world, mixture, reach, windows, restored, settings, against)
    asked, accepted = coming(alone_gates), Accepted.by(stored.gates if stored else ())
    tried, led_by = known_to_trials(stored.gates if stored else ()), leads(world)
    looked_at = watched(world.gates, stored)

    def turn(expert: ExpertSpec, row: ExpertRow) -> Turn:
        waiting, lead = asked.get(expert.expert_id, ()), led_by.get(draw(row))
        own = _Around(reach, windows, accepted, waiting, restored, lead, looked_at, ill)
        known, history = seen[expert.meta.name], world.histories.get(expert.meta.name, History())
        held = expert.expert_id in tried
        expert, found = sized(expert, row, known, history, held, reach.now)
        taken = replace(_turn(world, mixture, expert, row, known, own, settings), size=found)
        return settled(taken, held or bool(waiting))

    rows = opening_rows(admission.experts, stored, ids)
    led, followed = keep_in_step(alone_gates, tuple(map(turn, admission.experts, rows)))
    alone = _experts(led, followed)
    joint = join(begin_one(led, alone.rows, alone.possible, reach), followed, around.before)
    experts = _experts(joint.gates, joint.experts)
    pairs = pair(around, joint.gates, experts, restored, joint.apart)
    first = joint.first or pairs.gates.first(joint.gates, experts.rows)
    fitting = _together(joint.experts, pairs)
    turns = begin_in_order(fitting, mixture.max_concurrent, pairs.gates, first)
    of_gates = tuple(_settled(one, pairs.gates) for one in joint.gates)
    return Taken(turns, of_gates, pairs.gates)


@dataclass(frozen=True, slots=True)
class _Around:
    """What is around an expert: `gates` are variants that list it and are not stable yet.

    `lead` is the gate that leads its rollout, if it is tried out with any; `watched` are those in
    service whose routing is looked at, `ill` what unhealthy experts, by name, say.
    """

    reach: Reach
    windows: Mapping[str, Window]
    accepted: Accepted
    gates: tuple[Coming, ...]
    restored: Restored
    lead: Lead | None
    watched: Sequence[Watched]
    ill: Sequence[tuple[str, Finding]]

    def listing(self, expert_id: str) -> Iterator[Watched]:
        return (of for of in self.watched if expert_id in of.experts)

    def awaits(self, expert_id: str, version: Version) -> int:
        """Return the first share of sessions of gates to come that accept a version, percent."""
        waiting = (g for g in self.gates if accepts(g.variant, expert_id, version.version))
        return max((gate.percent for gate in waiting), default=0)


def _turn(
    world: World,
    mixture: MixtureSpec,
    expert: ExpertSpec,
    row: ExpertRow,
    seen: Seen,
    around: _Around,
    settings: Settings,
) -> Turn:
    """Take one expert one step further, as if it were alone."""
    brought_back = around.restored.experts.get(expert.meta.name, ())
    expert, accepted = _with_gate(expert, row, world, around)
    decided = decide(expert, row, seen.revisions, seen.overrides, accepted, brought_back)
    retried = decided.once is not None and decided.once.action is Action.RETRY
    again = (retried and decided.serve is None) or lifted(row, decided)
    render = partial(worker_template, mixture, expert, expert.version, settings)
    lineage = trace(expert, row, seen.revisions, again, render)
    case = Case(
        expert=expert,
        decided=decided,
        revision=lineage.current.number,
        reach=around.reach,
        windows=around.windows,
        refused=seen.refused,
        problems=seen.problems,
        replicas=seen.replicas,
        epoch=around.reach.next_epoch,
        accepted=accepted,
        awaited=around.awaits(expert.expert_id, decided.served or expert.version),
        placed=seen.placed,
    )
    want = wanted(row, case, mixture) if around.lead is None else None
    evaluated = evaluate(want, seen.evaluators, settings) if want else None
    drifts = drift_findings(around.listing(expert.expert_id), world.drifts)
    others = (finding for name, finding in around.ill if name != expert.meta.name)
    alarms = (*drifts, *others)
    sources = Sources(mixture, evaluated, world.routers, world.answers, alarms)
    judged = replace(case, judgement=judge(row, case, sources))
    return Turn(judged, row, advance(row, judged), lineage, seen, evaluated)


def _with_gate(
    expert: ExpertSpec, row: ExpertRow, world: World, around: _Around
) -> tuple[ExpertSpec, Accepted]:
    """Return an expert with the steps of the gate that leads its rollout, and what must fit."""
    if around.lead is None or world.table is None:
        return expert, around.accepted
    return around.lead.over(expert), Accepted.around(row, world.table.table.gates)


def _experts(gates: tuple[GateTurn, ...], turns: tuple[Turn, ...]) -> Experts:
    held = {t.row.expert_id: joined(t.before, t.decision, t.case) for t in turns}
    rows = [gate.row for gate in gates]
    alone = [t.row for t in turns if on_trial(t.row) and not any(together(r, t.row) for r in rows)]
    return Experts(
        before={turn.row.expert_id: turn.before for turn in turns},
        rows={turn.row.expert_id: turn.row for turn in turns},
        joinable={expert_id: row for expert_id, row in held.items() if row is not None},
        wanted={turn.row.expert_id: turn.case.wanted.version for turn in turns},
        fallen={t.row.expert_id: t.decision.why.message for t in turns if _fallen(t)},
        trials=[row.expert_id for row in alone],
    )


def _fallen(turn: Turn) -> bool:
    """Return whether what is wanted was taken back, and is not tried again by itself."""
    return turn.decision.why.reason in (Reason.ROLLED_BACK, Reason.ABORTED, Reason.ARTIFACT_REFUSED)


def _together(turns: tuple[Turn, ...], pairs: Pairs) -> tuple[Turn, ...]:
    """Let what was held be served where its gate now is, and stay where its gate stays."""

    def served(turn: Turn) -> Turn:
        if (stays := pairs.stayed.get(turn.row.expert_id)) is not None:
            why = Why(Reason.HELD, f"{turn.case.wanted.version} waits for its gate")
            return replace(turn, decision=Decision(stays, why, turn.decision.room))
        row = pairs.joined.get(turn.row.expert_id)
        if row is None:
            return turn
        serve, sentence = turn.case.decided.serve, f"{turn.case.wanted.version} is served"
        why = Why(Reason.COMPLETE, f"{sentence}, with its gate")
        told = Why(Reason.PROMOTED, why.message)
        if serve is not None:
            why = told = Why(Reason.OVERRIDDEN, f"{sentence}, with its gate: {because(serve)}")
        return replace(turn, decision=Decision(row, why, told=told, again_at=turn.case.now))

    return tuple(map(served, turns))


def _settled(one: GateTurn, gates: Gates) -> Turn:
    """Return a gate's turn as it came out: where its row does not change, nothing is told of it."""
    turn, row = one.turn, gates.row(one.name)
    decision = replace(turn.decision, why=gates.whys[one.name])
    if row is not None and row not in (one.row, one.before) and one.before is not None:
        said = f"{row.stable.version} is served, with the versions of experts that it accepts"
        told, why = Why(Reason.PROMOTED, said), Why(Reason.COMPLETE, said)
        decision = replace(decision, why=why, told=told, again_at=turn.case.now)
    if row is not None and row != one.before:
        return replace(turn, decision=replace(decision, row=as_row(one.gate, one.mixture, row)))
    # What it would become alone is not waited for: that is as it should be only with others.
    again_at = decision.again_at if decision.row == turn.before else None
    return replace(turn, decision=replace(decision, row=turn.before, told=None, again_at=again_at))
