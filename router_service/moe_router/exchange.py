"""One request on its way through the workers, from its batches to an answer.

A state machine without input or output: it is told what workers answered or that they did not, and
says which messages to send next. The caller owns sockets and the clock. Each pair is answered once:
by the expert chosen, or by a rung of the ladder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from moe_router import cold_pairs
from moe_router.climbs import Climbs
from moe_router.cold import Patience
from moe_router.cold_pairs import ColdPairs, count_missed
from moe_router.ladder import Ask, Cause, GiveUp, Leave, Lost, Surroundings, Wait, next_step
from moe_router.message import Message, Outlook, Part, fits
from moe_router.plan import Pairs, plan
from moe_router.races import Races, twin
from moe_router.refusal import Refused
from moe_router.replica import pick, turned
from moe_router.request import Request
from moe_router.sessions import Pins
from moe_router.setback import after, again, cause_of, unreachable
from moe_router.settle import Climb, Outcome, outcomes, settle
from moe_router.view import View
from moeops.v1.link_pb2 import GroupResult, Result

Array = npt.NDArray[Any]

# An attempt gets half of the time that remains, so that there is time for another one. With less
# than this left no worker is asked any more.
SHORTEST_ATTEMPT_S = 0.02


class Tally(cold_pairs.Tally, Protocol):
    """Counts what happens to each version. Times are those of the outlook."""

    def sent(self, expert_id: str, sha256: str, now_s: float) -> None: ...

    def answered(
        self, part: Part, result: GroupResult, latency_s: float, now_s: float, *, used: bool
    ) -> None: ...

    def failed(self, part: Part, cause: Cause, latency_s: float) -> None: ...


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
        self._waiting = 0  # parts under way whose pairs nobody has answered yet
        self._races = Races()
        self._used: list[Part] = []
        self._climbs = Climbs()
        self._began_s = 0.0
        self._cold = ColdPairs()
        self._refusal: Refused | None = None

    @property
    def finished(self) -> bool:
        return self._refusal is not None or not (self._waiting or self._cold)

    @property
    def looks_s(self) -> float | None:
        """When it is to `resume` at the latest; None where nothing waits for an expert."""
        return self._cold.until_s

    @property
    def used(self) -> tuple[Part, ...]:
        """What was answered, by whom."""
        return tuple(self._used)

    def outdated(self, newest: View) -> bool:
        """Whether it holds answers of a version that this table revokes: then it is to `resume`."""
        return any(newest.revokes(part.ask.expert_id, part.ask.sha256) for part in self._used)

    def begin(self, outlook: Outlook, tally: Tally) -> list[Message]:
        """Place all pairs."""
        batches = plan(self._request, self._pins, self._view)
        lost = [
            (Lost(batch.expert_id, batch.version, forced=batch.forced), batch.pairs)
            for batch in batches
        ]
        self._began_s = outlook.now_s
        count_missed((one for one, _ in lost), self._around(outlook), outlook.now_s, tally)
        return self._place(lost, outlook, tally)

    def resume(self, outlook: Outlook, tally: Tally) -> list[Message]:
        """Place again what waited for an expert, and what a revoked version answered.

        Somebody may hold the expert now, or its time is up.
        """
        lost = self._cold.look(self._around(outlook), outlook.now_s, tally)
        return self._place(lost, outlook, tally)

    def abandon(self, outlook: Outlook, tally: Tally) -> None:
        """Take it that nobody waits for the answer any more, or that there is none."""
        self._cold.abandon(outlook.now_s, tally)

    def answered(
        self, message: Message, result: Result, body: memoryview, outlook: Outlook, tally: Tally
    ) -> list[Message]:
        """Take the answer to a message; what it does not answer goes elsewhere."""
        if not fits(message, result, len(body)):
            return self.failed(message, Cause.REFUSED, outlook, tally)
        latency_s = outlook.now_s - message.sent_s
        rows = np.frombuffer(body, self._rows.dtype).reshape(-1, self._rows.shape[1])
        lost: list[tuple[Lost, Pairs]] = []
        taken: list[tuple[Part, Array]] = []
        at = 0
        for part, group in zip(message.parts, result.groups, strict=True):
            answer = rows[at : at + len(part.pairs)]
            at += 0 if group.HasField("failure") else len(part.pairs)
            if self._races.decided(part):
                continue  # late: another worker's answer is used and counted
            if group.HasField("failure"):
                cause = cause_of(group)
                tally.failed(part, cause, latency_s)
                lost += self._lose(part, after(part, message.worker, cause, group))
                continue
            revoked = outlook.newest.revokes(part.ask.expert_id, part.ask.sha256)
            used = not revoked and group.nonfinite_rows == 0
            tally.answered(part, group, latency_s, outlook.now_s, used=used)
            if group.nonfinite_rows:
                lost += self._lose(part, after(part, message.worker, Cause.NON_FINITE, group))
                continue
            taken.append((part, answer))
            self._races.win(part)
        self._take(message, rows, taken)
        return self._place(lost, outlook, tally)

    def _take(self, message: Message, rows: Array, taken: Sequence[tuple[Part, Array]]) -> None:
        """Put answers in their places: at once where all of the message are used."""
        if len(taken) == len(message.parts):
            self._rows[message.pairs] = rows
        else:
            for part, answer in taken:
                self._rows[part.pairs] = answer
        self._used += [part for part, _ in taken]
        self._waiting -= len(taken)

    def failed(
        self, message: Message, cause: Cause, outlook: Outlook, tally: Tally
    ) -> list[Message]:
        """Take it that a message will not be answered."""
        lost: list[tuple[Lost, Pairs]] = []
        for part in message.parts:
            if not self._races.decided(part):
                tally.failed(part, cause, outlook.now_s - message.sent_s)
                lost += self._lose(part, after(part, message.worker, cause, None))
        return self._place(lost, outlook, tally)

    def late(self, message: Message, outlook: Outlook, tally: Tally) -> list[Message]:
        """Ask other workers with the same versions as well, where there are any with time left."""
        remaining_s = self._deadline_s - outlook.now_s
        if self.finished or remaining_s < SHORTEST_ATTEMPT_S:
            return []
        twins: dict[str, list[Part]] = {}
        for part in message.parts:
            second = None if self._races.hedged(part) else twin(part, message, outlook)
            if second is not None:
                self._races.begin(part, second)
                worker = self._pick(second.ask, outlook, {})
                twins.setdefault(worker, []).append(second)
        return [self._message(w, p, remaining_s / 2, outlook, tally) for w, p in twins.items()]

    def _lose(self, part: Part, lost: Lost) -> list[tuple[Lost, Pairs]]:
        """Return what is to be placed again: nothing while another worker may still answer."""
        placed = self._races.lose(part, lost)
        if placed is None:
            return []
        self._waiting -= 1
        return [(placed, part.pairs)]

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
        climbs = [*by_workers, *self._climbs.all()]
        return settle(self._request, rows, climbs), outcomes(self._request, climbs)

    def _place(
        self, lost: Sequence[tuple[Lost, Pairs]], outlook: Outlook, tally: Tally
    ) -> list[Message]:
        lost = [*lost, *self._taken_back(outlook.newest)]
        around, remaining_s = self._around(outlook), self._deadline_s - outlook.now_s
        parts: dict[str, list[Part]] = {}
        self._climb(lost, around, outlook, parts, tally)
        if self._climbs.to_siblings and not parts and self.finished and not self._refusal:
            alone = replace(around, renormalisable=False)
            stranded = self._climbs.take_stranded(self._request.weights)
            self._climb(stranded, alone, outlook, parts, tally)
        if self._refusal is not None:
            return []
        self._waiting += sum(map(len, parts.values()))
        return [self._message(w, p, remaining_s / 2, outlook, tally) for w, p in parts.items()]

    def _around(self, outlook: Outlook) -> Surroundings:
        now_s = outlook.now_s
        return Surroundings(
            self._view,
            outlook.newest,
            outlook.routable,
            self._request.rows.layer,
            asking=self._deadline_s - now_s >= SHORTEST_ATTEMPT_S,
            patience=Patience(now_s, self._began_s, self._deadline_s, outlook.wakings),
        )

    def _taken_back(self, newest: View) -> list[tuple[Lost, Pairs]]:
        """Give up the answers of versions that were revoked since they were asked."""
        if newest is self._view:
            return []
        kept, anew = [], []
        for part in self._used:
            if newest.revokes(part.ask.expert_id, part.ask.sha256):
                self._rows[part.pairs] = 0
                anew.append((again(part), part.pairs))
            else:
                kept.append(part)
        self._used = kept
        return anew

    def _climb(
        self,
        lost: Iterable[tuple[Lost, Pairs]],
        around: Surroundings,
        outlook: Outlook,
        parts: dict[str, list[Part]],
        tally: Tally,
    ) -> None:
        """Take one step for each of `lost`; those that a worker is to be asked go into `parts`."""
        given: dict[str, int] = {w: sum(len(p.pairs) for p in ps) for w, ps in parts.items()}
        for one, pairs in lost:
            match next_step(one, around):
                case Ask() as ask:
                    worker = self._pick(ask, outlook, given)
                    given[worker] = given.get(worker, 0) + len(pairs)
                    parts.setdefault(worker, []).append(Part(one, ask, pairs))
                case Leave(rung):
                    self._climbs.leave(rung, one, pairs)
                case Wait() as wait:
                    refused = self._cold.enter(one, pairs, wait, outlook.now_s, tally)
                    self._refusal = self._refusal or refused
                case GiveUp():
                    self._refusal = self._refusal or unreachable(one, around)

    def _pick(self, ask: Ask, outlook: Outlook, given: Mapping[str, int]) -> str:
        workers = turned(ask.workers, self._turn)
        return pick(workers, outlook.load, outlook.lateness, given)

    def _message(
        self, worker: str, parts: list[Part], timeout_s: float, outlook: Outlook, tally: Tally
    ) -> Message:
        for part in parts:
            tally.sent(part.ask.expert_id, part.ask.sha256, outlook.now_s)
        pairs = np.concatenate([part.pairs for part in parts])
        rows = self._request.rows
        hidden = rows.hidden[pairs // self._k]
        return Message(worker, rows.layer, tuple(parts), pairs, hidden, outlook.now_s, timeout_s)
