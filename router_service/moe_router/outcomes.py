"""What clients found the answers worth: read at the edge, kept per session, summed per arm.

Only sessions whose arm was drawn at random are evidence: those that began while the weight of a
rollout was above 0 and below 100. Each is one cluster, placed once by its pin; what it reports
later replaces what it reported before, so that sums over the arms are at hand at any time. Of a
session that was degraded nothing counts: another function answered a part of it, and evidence
about a version must be about that version. In memory only; no clock, no input or output.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from moe_core.pins import pinned, weight_since
from moe_core.rollout import WeightSince
from moe_core.rows import ExpertRow, GateRow
from moe_router.refusal import Code, Refused
from moe_router.sequences import check_session
from moe_router.sessions import Start, read_token
from moe_router.view import View
from moeops.v1.router_pb2 import ReportOutcomeRequest, SessionOutcome

MAX_OUTCOMES = 1_024
MAX_COUNT = 1 << 40  # tokens or scores in one report
MAX_MEAN = 1e6  # bits per token, or a score; sums of squares stay far from what a double holds
MAX_REPORT = 1 << 53


class Measure(StrEnum):
    """What was reported: next-token loss over tokens, or a score over scores."""

    LOSS = "Loss"
    SCORE = "Score"


@dataclass(frozen=True, slots=True)
class Share:
    """A session's weight (tokens or scores) and its sum (of loss or score) in one measure."""

    w: int = 0
    x: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.w + other.w, self.x + other.x)


@dataclass(frozen=True, slots=True)
class Report:
    """What a session says for the `number`th time, about what came since the time before."""

    session: str
    start: Start
    number: int
    loss: Share
    score: Share


@dataclass(frozen=True, slots=True)
class Arm:
    """Sessions on one version of an expert that began under the weight set in `since_epoch`.

    Of a gate where `gate` is its name; then there is no expert.
    """

    expert_id: str
    sha256: str
    since_epoch: int
    gate: str = ""


@dataclass(slots=True)
class Sums:
    """Over sessions: their number, Σw, Σx, Σw², Σx², Σwx. Sums of w are exact."""

    sessions: int = 0
    w: int = 0
    x: float = 0.0
    ww: int = 0
    xx: float = 0.0
    wx: float = 0.0

    def add(self, share: Share, times: int) -> None:
        """Add a session, or with -1 take it away; one without weight is none."""
        if share.w:
            self.sessions += times
            self.w += times * share.w
            self.x += times * share.x
            self.ww += times * share.w**2
            self.xx += times * share.x**2
            self.wx += times * share.w * share.x


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a session counts, and with what. `number` is that of its last report."""

    arms: tuple[Arm, ...]
    number: int = 0
    degraded: bool = False
    loss: Share = Share()
    score: Share = Share()

    def after(self, report: Report, *, degraded: bool) -> _Standing:
        if self.degraded or degraded:
            return _Standing(self.arms, report.number, degraded=True)
        loss, score = self.loss + report.loss, self.score + report.score
        return replace(self, number=report.number, loss=loss, score=score)


class Outcomes:
    """The sessions that reported last, and sums over all that did. One event loop."""

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        self._standings: OrderedDict[tuple[str, int], _Standing] = OrderedDict()
        self._sums: dict[tuple[Arm, Measure], Sums] = {}
        self._view: View | None = None

    def take(self, report: Report, view: View, *, degraded: bool) -> bool:
        """Take in a report; whether it is new evidence. `view` is the newest table.

        A session that is forgotten for lack of room stays in the sums, and would be another
        cluster if it reported again.
        """
        self._turn_to(view)
        if report.start.uid != view.table.uid:
            return False
        key = report.session, report.start.epoch
        before = self._standings.get(key) or _Standing(arms(view, *key))
        if not before.arms or report.number <= before.number:
            return False
        after = before.after(report, degraded=degraded)
        self._standings[key] = after
        self._standings.move_to_end(key)
        if len(self._standings) > self._capacity:
            self._standings.popitem(last=False)
        counted = [arm for arm in before.arms if _on_trial(arm, view)]
        for arm in counted:
            self._replace(arm, Measure.LOSS, before.loss, after.loss)
            self._replace(arm, Measure.SCORE, before.score, after.score)
        return bool(counted) and not after.degraded

    def sums(self, view: View) -> Iterator[tuple[Arm, Measure, Sums]]:
        """Give the sums of each arm of the rollouts that are on trial in this table."""
        self._turn_to(view)
        for (arm, measure), sums in self._sums.items():
            yield arm, measure, sums

    def _replace(self, arm: Arm, measure: Measure, before: Share, after: Share) -> None:
        if before.w or after.w:
            sums = self._sums.setdefault((arm, measure), Sums())
            sums.add(before, -1)
            sums.add(after, 1)

    def _turn_to(self, view: View) -> None:
        """Drop what belongs to no rollout on trial; epochs of another uid mean other moments."""
        if view is self._view:
            return
        if self._view is not None and self._view.table.uid != view.table.uid:
            self._standings.clear()
            self._sums.clear()
        self._sums = {key: sums for key, sums in self._sums.items() if _on_trial(key[0], view)}
        self._view = view


def arms(view: View, session: str, began: int) -> tuple[Arm, ...]:
    """Return where a session counts: for each rollout on trial that drew its arm at random."""
    found = []
    for row in view.tried:
        since, version = _drawn(row, began), pinned(row, session, began)
        if since is not None and version is not None:
            found.append(Arm(row.expert_id, version.sha256, since.epoch))
    for gate in view.tried_gates:
        if (since := _drawn(gate, began)) is not None:
            variant = pinned(gate, session, began)
            found.append(Arm("", variant.sha256, since.epoch, gate.name))
    return tuple(found)


def _drawn(row: ExpertRow | GateRow, began: int) -> WeightSince | None:
    """Return the weight under which chance drew the arm of a session; None where it did not."""
    since = None if row.rollout is None else weight_since(row.rollout.weights, began)
    return since if since is not None and 0 < since.percent < 100 else None


def _on_trial(arm: Arm, view: View) -> bool:
    row = _tried(arm, view)
    if row is None or row.rollout is None or row.candidate is None:
        return False
    versions = {version.sha256 for version in row.named}
    return arm.sha256 in versions and any(
        since.epoch == arm.since_epoch for since in row.rollout.weights
    )


def _tried(arm: Arm, view: View) -> ExpertRow | GateRow | None:
    if arm.gate:
        return next((gate for gate in view.tried_gates if gate.name == arm.gate), None)
    return view.experts.get(arm.expert_id)


def parse_reports(message: ReportOutcomeRequest) -> Iterator[Report | Refused]:
    """Read one after another what clients report, or say what is wrong with it.

    The mixture is not looked at. Raises Refused for a message of too many.
    """
    count = len(message.outcomes)
    if count > MAX_OUTCOMES:
        raise _invalid(f"outcomes has {count} sessions; a message may have at most {MAX_OUTCOMES}")
    for index, one in enumerate(message.outcomes):
        try:
            yield _report(one, f"outcomes[{index}]")
        except Refused as refused:
            yield refused


def _report(message: SessionOutcome, name: str) -> Report:
    check_session(message.session, name)
    if not message.start_token:
        raise _invalid(f"{name}.start_token is empty; it must be what the first answer returned")
    start = read_token(message.start_token, message.session, f"{name}.start_token")
    if not 1 <= message.report <= MAX_REPORT:
        raise _invalid(f"{name}.report is {message.report}; a session counts its reports from 1")
    loss = _share(message.tokens, message.loss_bits, name, ("tokens", "loss_bits"))
    if loss.x < 0:
        raise _invalid(f"{name}.loss_bits is {loss.x}; it must be zero or more")
    score = _share(message.scores, message.score_sum, name, ("scores", "score_sum"))
    return Report(message.session, start, message.report, loss, score)


def _share(w: int, x: float, name: str, fields: tuple[str, str]) -> Share:
    if w > MAX_COUNT:
        raise _invalid(f"{name}.{fields[0]} is {w}; it must be at most {MAX_COUNT}")
    if not math.isfinite(x) or abs(x) > w * MAX_MEAN:
        text = f"it must be finite, and at most {MAX_MEAN:.0f} for each of the {w} {fields[0]}"
        raise _invalid(f"{name}.{fields[1]} is {x}; {text}")
    return Share(w, x)


def _invalid(message: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, message)
