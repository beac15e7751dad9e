"""One request on its way through the workers, from its batches to an answer.

A state machine without input or output: it is told what workers answered or that they did not, and
says which messages to send next. The caller owns sockets and the clock. Each pair is answered once:
by the expert chosen, or by a rung of the ladder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from moe_core.table import Rung
from moe_router.ladder import Ask, Cause, GiveUp, Leave, Lost, Surroundings, next_step
from moe_router.message import Message, Outlook, Part
from moe_router.plan import Pairs, plan
from moe_router.refusal import Code, Refused
from moe_router.replica import pick, turned
from moe_router.request import Request
from moe_router.sessions import Pins
from moe_router.settle import Climb, Outcome, outcomes, settle, stranded
from moe_router.view import View
from moeops.v1.link_pb2 import GroupResult, Result

Array = npt.NDArray[Any]

# An attempt gets half of the time that remains, so that there is time for another one. With less
# than this left no worker is asked any more.
SHORTEST_ATTEMPT_S = 0.02


class Tally(Protocol):
    """Counts what happens to each version. Times are those of the outlook."""

    def sent(self, expert_id: str, sha256: str, now_s: float) -> None: ...

    def answered(
        self, part: Part, result: GroupResult, latency_s: float, now_s: float, *, used: bool
    ) -> None: ...

    def failed(self, part: Part, cause: Cause, latency_s: float) -> None: ...

    def missed(self, expert_id: str, sha256: str) -> None: ...


class Exchange:
    """The state of one request. `messages` returned by its methods are to be sent at once."""

    def __init__(
        self, request: Request, view: View, pins: Sequence[Pins], deadline_s: float, turn: int
    ) -> None:
        self._request, self._view, self._pins = request, view, pins
        self._deadline_s, self._turn = deadline_s, turn
        tokens, self._k = request.weights.shape
        hidden = request.rows.hidden
        self._rows = np.zeros((tokens * self._k, hidden.shape[1]), hidden.dtype)
        self._waiting = 0
        self._used: list[Part] = []
        self._climbs: list[Climb] = []
        self._left: list[tuple[Lost, Pairs]] = []
        self._refusal: Refused | None = None

    @property
    def finished(self) -> bool:
        return self._refusal is not None or self._waiting == 0

    @property
    def used(self) -> tuple[Part, ...]:
        """What was answered, by whom."""
        return tuple(self._used)

    def begin(self, outlook: Outlook, tally: Tally) -> list[Message]:
        """Place all pairs."""
        batches = plan(self._request, self._pins, self._view)
        lost = [
            (Lost(batch.expert_id, batch.version, forced=batch.forced), batch.pairs)
            for batch in batches
        ]
        self._count_missed(lost, outlook, tally)
        return self._place(lost, outlook, tally)

    def answered(
        self, message: Message, result: Result, body: memoryview, outlook: Outlook, tally: Tally
    ) -> list[Message]:
        """Take the answer to a message; what it does not answer goes elsewhere."""
        if not self._fits(message, result, body):
            return self.failed(message, Cause.REFUSED, outlook, tally)
        latency_s = outlook.now_s - message.sent_s
        rows = np.frombuffer(body, self._rows.dtype).reshape(-1, self._rows.shape[1])
        lost, at = [], 0
        for part, group in zip(message.parts, result.groups, strict=True):
            if group.HasField("failure"):
                cause = _cause(group)
                tally.failed(part, cause, latency_s)
                lost.append((_after(part, message.worker, cause, group), part.pairs))
                continue
            revoked = outlook.newest.revokes(part.ask.expert_id, part.ask.sha256)
            used = not revoked and group.nonfinite_rows == 0
            tally.answered(part, group, latency_s, outlook.now_s, used=used)
            answer, at = rows[at : at + len(part.pairs)], at + len(part.pairs)
            if group.nonfinite_rows:
                lost.append((_after(part, message.worker, Cause.NON_FINITE, group), part.pairs))
                continue
            self._rows[part.pairs] = answer
            self._used.append(part)
        self._waiting -= 1
        return self._place(lost, outlook, tally)

    def failed(
        self, message: Message, cause: Cause, outlook: Outlook, tally: Tally
    ) -> list[Message]:
        """Take it that a message will not be answered."""
        lost = []
        for part in message.parts:
            tally.failed(part, cause, outlook.now_s - message.sent_s)
            lost.append((_after(part, message.worker, cause, None), part.pairs))
        self._waiting -= 1
        return self._place(lost, outlook, tally)

    def answer(self) -> tuple[Array, tuple[Outcome, ...]]:
        """Return the layer's output (T, H) and how each sequence fared. Raises Refused."""
        if self._refusal is not None:
            raise self._refusal
        tokens, k = self._request.weights.shape
        rows = self._rows.reshape(tokens, k, -1)
        by_workers = [
            Climb(part.ask.rung, part.lost.expert_id, part.pairs)
            for part in self._used
            if part.ask.rung is not None
        ]
        climbs = [*by_workers, *self._climbs]
        return settle(self._request, rows, climbs), outcomes(self._request, climbs)

    def _fits(self, message: Message, result: Result, body: memoryview) -> bool:
        if len(result.groups) != len(message.parts):
            return False
        pairs = zip(message.parts, result.groups, strict=True)
        answered = sum(len(part.pairs) for part, group in pairs if not group.HasField("failure"))
        return len(body) == answered * int(self._rows.shape[1]) * self._rows.itemsize

    def _place(
        self, lost: Sequence[tuple[Lost, Pairs]], outlook: Outlook, tally: Tally
    ) -> list[Message]:
        lost = [*lost, *self._taken_back(outlook.newest)]
        remaining_s = self._deadline_s - outlook.now_s
        around = Surroundings(
            self._view,
            outlook.newest,
            outlook.routable,
            self._request.rows.layer,
            asking=remaining_s >= SHORTEST_ATTEMPT_S,
        )
        parts: dict[str, list[Part]] = {}
        self._climb(lost, around, outlook, parts)
        if self._left and not parts and self._waiting == 0 and self._refusal is None:
            self._climb(self._stranded(), replace(around, renormalisable=False), outlook, parts)
        if self._refusal is not None:
            return []
        self._waiting += len(parts)
        return [self._message(w, p, remaining_s / 2, outlook, tally) for w, p in parts.items()]

    def _count_missed(
        self, lost: Sequence[tuple[Lost, Pairs]], outlook: Outlook, tally: Tally
    ) -> None:
        """Count against a version that sessions are on and nobody holds, whoever then answers."""
        layer = self._request.rows.layer
        for one, _ in lost:
            if one.pinned is None or one.forced:
                continue
            expert_id, sha256 = one.expert_id, one.pinned.sha256
            revoked = outlook.newest.revokes(expert_id, sha256)
            if not revoked and not outlook.routable.for_artifact(sha256, layer):
                tally.missed(expert_id, sha256)

    def _taken_back(self, newest: View) -> list[tuple[Lost, Pairs]]:
        """Give up the answers of versions that were revoked since they were asked."""
        if newest is self._view:
            return []
        kept, again = [], []
        for part in self._used:
            if newest.revokes(part.ask.expert_id, part.ask.sha256):
                self._rows[part.pairs] = 0
                again.append((_again(part), part.pairs))
            else:
                kept.append(part)
        self._used = kept
        return again

    def _climb(
        self,
        lost: Iterable[tuple[Lost, Pairs]],
        around: Surroundings,
        outlook: Outlook,
        parts: dict[str, list[Part]],
    ) -> None:
        """Take one step for each of `lost`; those that a worker is to be asked go into `parts`."""
        given: dict[str, int] = {w: sum(len(p.pairs) for p in ps) for w, ps in parts.items()}
        for one, pairs in lost:
            match next_step(one, around):
                case Ask() as ask:
                    worker = pick(turned(ask.workers, self._turn), outlook.load, given)
                    given[worker] = given.get(worker, 0) + len(pairs)
                    parts.setdefault(worker, []).append(Part(one, ask, pairs))
                case Leave(Rung.RENORMALISE):
                    self._left.append((one, pairs))
                    self._climbs.append(Climb(Rung.RENORMALISE, one.expert_id, pairs))
                case Leave(rung):
                    self._climbs.append(Climb(rung, one.expert_id, pairs))
                case GiveUp():
                    self._refusal = self._refusal or _unreachable(one, around)

    def _stranded(self) -> list[tuple[Lost, Pairs]]:
        """Take back the pairs left to the others of their token where there are no others."""
        weights = self._request.weights
        left = np.zeros(weights.size, bool)
        for climb in self._climbs:
            if climb.rung in (Rung.RENORMALISE, Rung.RESIDUAL):
                left[climb.pairs] = True
        alone = np.repeat(stranded(weights, left.reshape(weights.shape)), self._k)
        again = [(lost, pairs[alone[pairs]]) for lost, pairs in self._left if alone[pairs].any()]
        self._left = [(lost, pairs[~alone[pairs]]) for lost, pairs in self._left]
        others = [climb for climb in self._climbs if climb.rung is not Rung.RENORMALISE]
        kept = [Climb(Rung.RENORMALISE, lost.expert_id, p) for lost, p in self._left if len(p)]
        self._climbs = others + kept
        return again

    def _message(
        self, worker: str, parts: list[Part], timeout_s: float, outlook: Outlook, tally: Tally
    ) -> Message:
        for part in parts:
            tally.sent(part.ask.expert_id, part.ask.sha256, outlook.now_s)
        tokens = np.concatenate([part.pairs for part in parts]) // self._k
        rows = self._request.rows
        return Message(
            worker, rows.layer, tuple(parts), rows.hidden[tokens], outlook.now_s, timeout_s
        )


def _cause(group: GroupResult) -> Cause:
    expired = group.failure.code == Code.DEADLINE_EXCEEDED.value
    return Cause.DEADLINE if expired else Cause.REFUSED


def _after(part: Part, worker: str, cause: Cause, group: GroupResult | None) -> Lost:
    """Return the pairs' history with this attempt in it."""
    history, sha256 = part.lost.history, part.ask.sha256
    full = group is not None and group.failure.code == Code.RESOURCE_EXHAUSTED.value
    barred = {sha256} if cause is Cause.NON_FINITE else set()
    after = replace(
        history,
        failed=history.failed | {(worker, sha256)},
        barred=history.barred | barred,
        overloaded=full,
        last=cause,
        attempts=history.attempts + 1,
    )
    return replace(part.lost, history=after)


def _again(part: Part) -> Lost:
    """Return the pairs' history with an attempt in it that was answered in vain."""
    history = part.lost.history
    return replace(part.lost, history=replace(history, attempts=history.attempts + 1))


def _unreachable(lost: Lost, around: Surroundings) -> Refused:
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
