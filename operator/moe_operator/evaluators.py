"""The pod that tries a candidate on the golden set: whether one is wanted, and what it found.

A pod's name says which revision, which golden set and which attempt it is, so that all there is to
know is in the pods: the next attempt is made before the one that failed is deleted. What they
found is judged in `quality`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from moe_core.document import InvalidDocument
from moe_core.rollout import Rollout, Version
from moe_core.rows import ExpertRow, GateRow
from moe_operator import labels, quality
from moe_operator.case import Case
from moe_operator.evaluation import Evaluation
from moe_operator.golden import OF_GATE, Beside, Trial, read_result
from moe_operator.intent import Delete, Manifest
from moe_operator.judgement import Finding
from moe_operator.reach import Reach
from moe_operator.render import evaluator_pod
from moe_operator.spec import MixtureSpec, Tried
from moe_operator.template import Settings, evaluator_spec
from moe_operator.verdict import Tier, Verdict
from moe_operator.world import PodSeen

NAME: Final = "golden"

_FIRST_WAIT: Final = timedelta(seconds=10)  # after the first failure; then it doubles
_LONGEST_WAIT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A candidate that waits in the dark for its golden set; `beside` is tried out with it."""

    evaluation: Evaluation
    rollout: Rollout
    stable: Version
    case: Case
    mixture: MixtureSpec
    beside: tuple[Beside, ...] = ()

    @property
    def prefix(self) -> str:
        """How the names of its pods begin."""
        revision, golden = self.rollout.revision, self.evaluation.sha256
        return labels.evaluators_name(self.case.expert, revision, golden)

    @property
    def trial(self) -> Trial:
        expert, target = self.case.expert, self.rollout.target.sha256
        name = expert.expert_id if expert.kind is Tried.EXPERT else expert.meta.name
        golden, stable = self.evaluation.sha256, self.stable.sha256
        return Trial(golden, name, stable, target, expert.kind, self.beside)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """How far the golden set is: the pod that is to stay, and the one that is to be made."""

    finding: Finding
    kept: str = ""
    made: Manifest | None = None
    again_at: datetime | None = None


def wanted(
    row: ExpertRow, case: Case, mixture: MixtureSpec, others: Iterable[ExpertRow | GateRow] = ()
) -> Wanted | None:
    """Return what is to be evaluated; None where no candidate waits for that.

    `others` are tried out with a gate.
    """
    rollout, evaluation = row.rollout, case.expert.evaluation or mixture.evaluation
    if rollout is None or rollout.outcome.ended or rollout.step > 0 or rollout.evaluated:
        return None
    if evaluation is None or row.stable is None or row.candidate is None:
        return None
    beside = (
        Beside(_told(other), other.stable.sha256, other.candidate.sha256)
        for other in others
        if other.stable is not None and other.candidate is not None
    )
    named = tuple(sorted(beside, key=lambda one: one.name))
    return Wanted(evaluation, rollout, row.stable, case, mixture, named)


def _told(other: ExpertRow | GateRow) -> str:
    return other.expert_id if isinstance(other, ExpertRow) else f"{OF_GATE}{other.name}"


def evaluate(want: Wanted, pods: Sequence[PodSeen], settings: Settings) -> Evaluated:
    """Return what the newest attempt found, or what becomes of the next one.

    `pods` are the expert's evaluators, those that are being deleted too.
    """
    lacks = _lacking(want.mixture, settings)
    if lacks:
        return Evaluated(_finding(f"golden set: {lacks}", stalled=True))
    numbered = {_attempt(pod, want.prefix): pod for pod in pods}
    attempts = {number: pod for number, pod in sorted(numbered.items()) if number}
    living = [pod for pod in attempts.values() if not pod.deleting]
    if not living:
        return _begin(want, max(attempts, default=0) + 1, settings)
    pod = living[-1]
    if not pod.over:
        said = pod.problem or "runs"
        return Evaluated(_finding(f"golden set: {pod.name}: {said}"), pod.name)
    try:
        verdict = _verdict(want, pod)
    except InvalidDocument as error:
        return _again(want, pod, str(error), max(attempts), settings)
    stalled = verdict.passed is None
    return Evaluated(Finding(Tier.QUALITY, NAME, verdict, stalled), pod.name)


def _verdict(want: Wanted, pod: PodSeen) -> Verdict:
    """Judge what a pod that is over has said. Raises InvalidDocument."""
    if not pod.message:
        raise InvalidDocument(pod.problem or "it ended without a word")
    result, limits = read_result(pod.message, want.trial), want.evaluation
    return quality.golden(result, limits.max_loss_increase_percent, limits.slices)


def unwanted(pods: Iterable[PodSeen], kept: str) -> tuple[Delete, ...]:
    """Return the evaluators that may go: all but the one that is to stay."""
    return tuple(
        Delete("Pod", pod.name, pod.uid, pod.resource_version)
        for pod in pods
        if pod.name != kept and not pod.deleting
    )


def _lacking(mixture: MixtureSpec, settings: Settings) -> str:
    """Return what is not there that every evaluator needs."""
    name = mixture.meta.name
    if not mixture.trunk_uri or not mixture.trunk_sha256:
        return f"spec.trunk of Mixture {name} needs uri and sha256 for an evaluation"
    if not mixture.evaluators.image and not settings.evaluator_image:
        return f"spec.evaluators.image of Mixture {name} is not set, and the operator has no image"
    return ""


def _begin(want: Wanted, attempt: int, settings: Settings) -> Evaluated:
    """Make an evaluator, once every router knows the candidate and reaches it."""
    case, target = want.case, want.rollout.target
    if case.decided.pause is not None:
        return Evaluated(_finding("golden set: not begun while the rollout is held"))
    known = case.reach.acknowledged(case.epoch - 1)
    # What a gate reaches are routers; its experts are reached as any others.
    served = all(
        case.reach.workers(one.candidate) if one.gate else Reach.workers(case.reach, one.candidate)
        for one in want.beside
    )
    if not known or not served or not case.reach.workers(target.sha256):
        return Evaluated(_finding("golden set: not every router reaches the candidate yet"))
    name = f"{want.prefix}{attempt}"
    spec = evaluator_spec(want.mixture, case.expert, want.trial, want.evaluation.uri, settings)
    made = evaluator_pod(name, case.expert, target, spec)
    return Evaluated(_finding(f"golden set: {name} is being started"), name, made)


def _again(want: Wanted, pod: PodSeen, problem: str, attempt: int, settings: Settings) -> Evaluated:
    """Make the next attempt when its time has come; the one that failed stays until then."""
    wait = min(_FIRST_WAIT * 2 ** min(attempt - 1, 16), _LONGEST_WAIT)
    due = (pod.ended or pod.created) + wait
    said = _finding(f"golden set: {pod.name} failed and is tried again: {problem}")
    if due > want.case.now:
        return Evaluated(said, pod.name, again_at=due)
    return Evaluated(said, pod.name, _begin(want, attempt + 1, settings).made)


def _finding(said: str, *, stalled: bool = False) -> Finding:
    return Finding(Tier.QUALITY, NAME, Verdict(None, said), stalled)


def _attempt(pod: PodSeen, prefix: str) -> int:
    """Return the number of an attempt; 0 where the pod is of something else."""
    number = pod.name.removeprefix(prefix)
    return int(number) if pod.name.startswith(prefix) and number.isdigit() else 0
