"""What to ask Prometheus of a candidate and of stable, and what follows from the answers.

Pure: templates in, queries out, and verdicts from what was answered. An error, no number or an
answer from before the step is neither for nor against a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from moe_core.rollout import Version
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_operator.judgement import Finding
from moe_operator.reason import moment
from moe_operator.spec import ExpertSpec, MixtureSpec, Tried
from moe_operator.strategy import Query
from moe_operator.trial import as_expert, as_row
from moe_operator.verdict import Tier, Verdict
from moe_operator.world import Answer, Question, World


def questions(world: World, table: Table | None) -> tuple[Question, ...]:
    """Return what to ask for a mixture, given the table as it stands after the plan."""
    mixture = world.mixture
    if mixture is None or table is None or not mixture.prometheus:
        return ()
    asked = {
        question
        for tried, row in _tried(world, mixture, table)
        if _weighed(row)
        for query in tried.rollout.queries
        for question in _pair(query, mixture, tried, row)
    }
    return tuple(sorted(asked, key=lambda question: question.query))


def _tried(
    world: World, mixture: MixtureSpec, table: Table
) -> Iterator[tuple[ExpertSpec, ExpertRow]]:
    """Give what has queries, with its row; gates in the terms of experts."""
    for expert in world.experts:
        row = table.expert(expert.expert_id) if expert.rollout.queries else None
        if row is not None and row.name == expert.meta.name:
            yield expert, row
    gates = {gate.name: gate for gate in table.gates}
    for gate in world.gates:
        if gate.rollout.queries and gate.meta.name in gates:
            yield as_expert(gate, mixture), as_row(gate, mixture, gates[gate.meta.name])


def prometheus_findings(
    row: ExpertRow, mixture: MixtureSpec, expert: ExpertSpec, answers: Mapping[Question, Answer]
) -> Iterator[Finding]:
    """Give one finding for each query, while the candidate has weight."""
    if row.rollout is None or not _weighed(row):
        return
    began = moment(row.rollout.step_began)
    for query in expert.rollout.queries:
        if mixture.prometheus:
            told = [_number(answers.get(q), began) for q in _pair(query, mixture, expert, row)]
            yield Finding(Tier.PROMETHEUS, query.name, _judge(query, *told))
        else:
            lacks = f"{query.name}: spec.prometheus of Mixture {mixture.meta.name} is not set"
            yield Finding(Tier.PROMETHEUS, query.name, Verdict(None, lacks), stalled=True)


def _weighed(row: ExpertRow) -> bool:
    rollout = row.rollout
    trial = rollout is not None and not rollout.outcome.ended and rollout.step > 0
    return trial and row.candidate is not None and row.stable is not None


def _pair(
    query: Query, mixture: MixtureSpec, expert: ExpertSpec, row: ExpertRow
) -> tuple[Question, Question]:
    """Return what is asked of the candidate and of stable."""
    assert row.candidate is not None
    assert row.stable is not None
    return (
        Question(mixture.prometheus, _filled(query.query, expert, row.candidate)),
        Question(mixture.prometheus, _filled(query.stable_query, expert, row.stable)),
    )


def _filled(template: str, expert: ExpertSpec, version: Version) -> str:
    gate = expert.kind is Tried.GATE
    values = {
        "namespace": expert.meta.namespace,
        "mixture": expert.mixture,
        "expert": "" if gate else expert.expert_id,
        "gate": expert.meta.name if gate else "",
        "version": version.version,
        "sha256": version.sha256,
    }
    for name, value in values.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def _number(answer: Answer | None, began: datetime) -> float | str:
    """Return the number of an answer of this step, or why there is none."""
    if answer is None or answer.at < began:
        return "not answered yet in this step"
    return answer.problem if answer.value is None else answer.value


def _judge(query: Query, candidate: float | str, stable: float | str) -> Verdict:
    """Compare two numbers, lower being better; where stable's is 0, any increase is too much."""
    if isinstance(candidate, str):
        return Verdict(None, f"{query.name}: {candidate}")
    if isinstance(stable, str):
        return Verdict(None, f"{query.name} of stable: {stable}")
    limit = stable + abs(stable) * query.max_increase_percent / 100
    return Verdict(
        candidate <= limit,
        f"{query.name} is {candidate:.6g} against {stable:.6g} of stable; "
        f"maxIncreasePercent is {query.max_increase_percent}",
    )
