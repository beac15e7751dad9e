"""What the next step of one expert depends on, and what a step is: data, and plain arithmetic."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from moe_core.rollout import Version
from moe_core.rows import ExpertRow
from moe_operator.fit import Accepted
from moe_operator.judgement import Judgement
from moe_operator.labels import short
from moe_operator.overrides import Decided
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why
from moe_operator.spec import ExpertSpec
from moe_operator.window import Window


@dataclass(frozen=True, slots=True)
class Case:
    """All that the next step of one expert depends on.

    `refused` is what workers said of artifacts that they will not serve, by sha256; `problems` why
    pods do not come up, and `replicas` how many are asked for, by the digest's first digits.
    `epoch` is the one that a change would get; `judgement` what is known of the candidate.
    `accepted` is what the gates in service accept; `awaited` is the percentage of sessions that a
    gate to come wants on this version at first, 0 where none does; `granted` says that a rollout
    may begin. `placed` is when the last pod of a version
    found a node, by the digest's first digits.
    """

    expert: ExpertSpec
    decided: Decided
    revision: int
    reach: Reach
    windows: Mapping[str, Window]
    refused: Mapping[str, str]
    problems: Mapping[str, str]
    replicas: Mapping[str, int]
    epoch: int
    accepted: Accepted = field(default_factory=Accepted)
    awaited: int = 0
    granted: bool = False
    placed: Mapping[str, datetime] = field(default_factory=dict)
    judgement: Judgement = field(default_factory=Judgement)

    @property
    def now(self) -> datetime:
        return self.reach.now

    @property
    def wanted(self) -> Version:
        """The version to end at: that of the spec, or of an Override that holds."""
        return self.decided.served or self.expert.version

    @property
    def misfit(self) -> str:
        """Why the wanted version cannot be served beside the gates in service; empty if it can."""
        return self.accepted.refusal(self.expert.expert_id, self.wanted.version)

    def deadline(self, sha256: str, since: datetime) -> datetime:
        """Return when a version must serve; the time runs while all its pods have a node."""
        runs_from = max(since, self.placed.get(short(sha256), since))
        return runs_from + timedelta(seconds=self.expert.rollout.progress_deadline_s)

    def salt(self, row: ExpertRow) -> str:
        """Return what places sessions in this rollout, unlike in any other one."""
        seed = f"{self.expert.mixture}\0{row.expert_id}\0{self.revision}\0{self.epoch}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

    def room(self, percent: int) -> int:
        """Return the pods that a version needs for this share of sessions."""
        return max(1, math.ceil(self.expert.replicas * percent / 100))

    def waits_for_pods(self, sha256: str, otherwise: str) -> Why:
        """Say why a version has too few pods that routers reach."""
        problem = self.problems.get(short(sha256), "")
        if problem.startswith("Unschedulable") or "exceeded quota" in problem:
            return Why(Reason.UNSCHEDULABLE, problem)
        if not self.reach.ready:
            return Why(Reason.WAITING_FOR_ROUTERS, "no router is ready yet")
        return Why(Reason.WAITING_FOR_PODS, f"{otherwise}: {problem}" if problem else otherwise)


@dataclass(frozen=True, slots=True)
class Decision:
    """The row as it is to be, and the sentence that says how far things are.

    `room` is the number of pods of the version that is coming; `told` is what to tell people of
    a change; `again_at` is when time alone may change the decision. `asks` says that a rollout
    would begin if it were its turn, `held` that the version waits for a gate that accepts it.
    """

    row: ExpertRow
    why: Why
    room: int = 0
    told: Why | None = None
    again_at: datetime | None = None
    asks: bool = False
    held: bool = False
