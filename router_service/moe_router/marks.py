"""Remembers, within bounds, what cannot be derived: who was degraded and who was told of what.

Losing it (a restart, or more sessions than it holds) costs a mark or a repeated telling, never an
answer. Holds no clock and does no input or output.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moe_core.table import Failover
from moe_router.budget import MIXTURE_BURST, SESSION_BURST, Allowance, Bucket
from moe_router.refusal import Code, Refused
from moe_router.sessions import Taken


@dataclass(frozen=True, slots=True)
class Mark:
    """What is remembered of one session."""

    bucket: Bucket | None = None
    degraded: bool = False
    told: frozenset[Taken] = frozenset()


@dataclass(frozen=True, slots=True)
class Loss:
    """Gate mass of a request's rows of one session, and what of it others answered for."""

    session: str
    served: float
    lost: float
    experts: tuple[str, ...] = ()


_UNMARKED = Mark()


class Marks:
    """The marks of the sessions seen last, and the budget of the whole mixture."""

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        self._marks: OrderedDict[str, Mark] = OrderedDict()
        self._mixture: Bucket | None = None

    def degraded(self, session: str) -> bool:
        return self._marks.get(session, _UNMARKED).degraded

    def tell(self, session: str, taken: Iterable[Taken]) -> tuple[Taken, ...]:
        """Return what in `taken` this session was not told of."""
        mark = self._marks.get(session, _UNMARKED)
        news = tuple(one for one in taken if one not in mark.told)
        if news:
            self._put(session, replace(mark, told=mark.told.union(news)))
        return news

    def account(self, failover: Failover, losses: Sequence[Loss]) -> None:
        """Charge a request to its sessions and the mixture, or to none of them.

        Raises Refused, which names experts and share, where a budget is exhausted.
        """
        percent = failover.max_degraded_percent
        each = Allowance(percent, SESSION_BURST)
        spent: dict[str, Bucket] = {}
        for loss in losses:
            mark = self._marks.get(loss.session, _UNMARKED)
            before = spent.get(loss.session) or mark.bucket or Bucket(each.full)
            after = before.spend(each, loss.served, loss.lost)
            if after is None:
                raise _exhausted(f"session {loss.session!r}", percent, [loss])
            spent[loss.session] = after
        whole = Allowance(percent, MIXTURE_BURST)
        served, lost = sum(x.served for x in losses), sum(x.lost for x in losses)
        mixture = (self._mixture or Bucket(whole.full)).spend(whole, served, lost)
        if mixture is None:
            raise _exhausted("the mixture", percent, losses)
        self._mixture = mixture
        for loss in losses:
            self._keep(loss, spent[loss.session])

    def _keep(self, loss: Loss, bucket: Bucket) -> None:
        mark = self._marks.get(loss.session)
        if mark is None and loss.lost == 0:
            return
        mark = mark or _UNMARKED
        degraded = mark.degraded or loss.lost > 0
        self._put(loss.session, replace(mark, bucket=bucket, degraded=degraded))

    def _put(self, session: str, mark: Mark) -> None:
        self._marks[session] = mark
        self._marks.move_to_end(session)
        if len(self._marks) > self._capacity:
            self._marks.popitem(last=False)


def _exhausted(who: str, percent: int, losses: Sequence[Loss]) -> Refused:
    served, lost = sum(x.served for x in losses), sum(x.lost for x in losses)
    experts = sorted({expert for loss in losses for expert in loss.experts})
    named = ", ".join(map(repr, experts[:8]))
    share = 100 * lost / served if served else 100.0
    return Refused(
        Code.UNAVAILABLE,
        f"no version of expert {named} is reachable, which is {share:.1f} % of this request's gate "
        f"mass, and the degraded budget of {who} (failover.maxDegradedPercent {percent}) is spent",
        retry_after_ms=200,
    )
