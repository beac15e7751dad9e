"""The spans of one sampled request: gate, plan, an attempt for each expert at each worker, combine.

Pure, and on the way of sampled requests only. `Attempts` stands between a flight and its links,
where it sees who is asked, and between the exchange and its counters, where it hears what came of
it; neither of them knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from moe_core.tracing import Attributes, Span
from moe_core.version_names import version_names
from moe_router.cold import Version
from moe_router.colds import End
from moe_router.exchange import Tally
from moe_router.flight import Links, Waiter
from moe_router.ladder import NOT_DEGRADED, Cause
from moe_router.message import Message, Part, Trace
from moe_router.refusal import Refused
from moe_router.replica import Routable
from moe_router.request import Request, Rows
from moe_router.settle import Outcome
from moe_router.variants import EMPTY
from moe_router.view import View
from moeops.v1.link_pb2 import GroupResult

ANSWERED: Final = "Answered"
REVOKED: Final = "Revoked"
SUPERSEDED: Final = "Superseded"  # another worker was faster, or the request ended


def about(rows: Rows, view: View) -> Attributes:
    """Return what a request's span says of it."""
    return {
        "moe.mixture": view.table.mixture,
        "moe.epoch": view.table.epoch,
        "moe.layer": rows.layer,
        "moe.rows": len(rows.hidden),
        "moe.sessions": len(rows.sequences),
    }


def tell_gate(span: Span, request: Request, began_s: float, chosen_s: float) -> None:
    """Tell by which versions of which gate experts were chosen, the caller's time for it apart."""
    rows = request.rows
    gate = span.child("gate", began_s)
    gate.tell(
        {
            "moe.gate": rows.gate.name,
            "moe.versions": [variant.version for variant in rows.variants],
            "moe.sha256": [variant.sha256 for variant in rows.variants],
            "moe.pairs": int(np.count_nonzero(request.experts != EMPTY)),
        }
    )
    gate.end(chosen_s)


def tell_combine(
    span: Span, outcomes: Sequence[Outcome], answered_s: float, ended_s: float
) -> None:
    """Tell which rungs answered, also those that ask no worker."""
    rungs = [one for outcome in outcomes for one in outcome.rungs]
    combine = span.child("combine", answered_s)
    combine.tell(
        {
            "moe.rungs": sorted({f"{rung}/{expert_id}" for rung, expert_id, _ in rungs}),
            "moe.degraded_pairs": sum(n for rung, _, n in rungs if rung not in NOT_DEGRADED),
        }
    )
    combine.end(ended_s)


@dataclass(slots=True, eq=False)
class _Open:
    """An attempt that nothing was heard of yet."""

    part: Part
    span: Span


class Attempts:
    """The attempts of one request, within a `with`: what is open at its end was superseded."""

    def __init__(
        self, span: Span, view: View, links: Links, tally: Tally, clock: Callable[[], float]
    ) -> None:
        self._span, self._view = span, view
        self._links, self._tally, self._clock = links, tally, clock
        self._began_s = clock()
        self._planned_s: float | None = None
        self._open: dict[int, _Open] = {}

    def __enter__(self) -> Attempts:
        return self

    def __exit__(self, *_: object) -> None:
        now_s = self._clock()
        self._span.child("plan", self._began_s).end(self._planned_s or now_s)
        for one in self._open.values():
            _end(one.span, SUPERSEDED, now_s)

    @property
    def routable(self) -> Routable:
        return self._links.routable

    @property
    def load(self) -> Mapping[str, int]:
        return self._links.load

    @property
    def lateness(self) -> Mapping[str, int]:
        return self._links.lateness

    def send(self, message: Message, waiter: Waiter) -> bool:
        """Begin an attempt for each part, and have the worker know of them."""
        now_s = self._clock()
        self._planned_s = self._planned_s or now_s
        contexts = [self._begin(message.worker, part, now_s).context for part in message.parts]
        spans = tuple(context.span_id for context in contexts)
        traced = replace(message, trace=Trace(contexts[0].trace_id, spans))
        return self._links.send(traced, waiter)

    def sent(self, expert_id: str, sha256: str, now_s: float) -> None:
        self._tally.sent(expert_id, sha256, now_s)

    def answered(
        self, part: Part, result: GroupResult, latency_s: float, now_s: float, *, used: bool
    ) -> None:
        self._tally.answered(part, result, latency_s, now_s, used=used)
        wrong = Cause.NON_FINITE if result.nonfinite_rows else REVOKED
        self._end(part, ANSWERED if used else wrong)

    def failed(self, part: Part, cause: Cause, latency_s: float) -> None:
        self._tally.failed(part, cause, latency_s)
        self._end(part, cause)

    def missed(self, expert_id: str, sha256: str, now_s: float) -> None:
        self._tally.missed(expert_id, sha256, now_s)

    def waits(self, version: Version, rows: int, now_s: float) -> Refused | None:
        return self._tally.waits(version, rows, now_s)

    def waited(self, version: Version, rows: int, end: End, waited_s: float) -> None:
        """Tell of a wait that is over: what rows waited for, and what became of it."""
        self._tally.waited(version, rows, end, waited_s)
        now_s, (expert_id, sha256) = self._clock(), version
        span = self._span.child("wait", now_s - waited_s)
        span.tell(
            {
                "moe.expert": expert_id,
                "moe.version": self._version(expert_id, sha256),
                "moe.sha256": sha256,
                "moe.rows": rows,
                "moe.outcome": end.value,
            }
        )
        span.end(now_s)

    def _begin(self, worker: str, part: Part, now_s: float) -> Span:
        ask = part.ask
        hedged = any(one.part.pairs is part.pairs for one in self._open.values())
        span = self._span.child("attempt", now_s, remote=True)
        span.tell(
            {
                "moe.worker": worker,
                "moe.expert": ask.expert_id,
                "moe.version": self._version(ask.expert_id, ask.sha256),
                "moe.sha256": ask.sha256,
                "moe.rows": len(part.pairs),
                "moe.rung": ask.rung or "",
                "moe.hedged": hedged,
                **(
                    {"moe.for": part.lost.expert_id} if part.lost.expert_id != ask.expert_id else {}
                ),
            }
        )
        self._open[id(part)] = _Open(part, span)
        return span

    def _version(self, expert_id: str, sha256: str) -> str:
        row = self._view.experts.get(expert_id)
        return "" if row is None else version_names(row).get(sha256, "")

    def _end(self, part: Part, outcome: str) -> None:
        one = self._open.pop(id(part), None)
        if one is not None:
            _end(one.span, outcome, self._clock())


def _end(span: Span, outcome: str, now_s: float) -> None:
    """An attempt without a usable answer failed; one that nobody waits for has not."""
    span.tell({"moe.outcome": outcome})
    failed = outcome not in (ANSWERED, SUPERSEDED)
    span.end(now_s, f"the attempt's outcome is {outcome}" if failed else "")
