"""What routers counted since they were last heard: differences of counters that only grow.

Who is heard for the first time may have counted for long: that is passed over. A router that
starts anew counts from zero. All this is memory only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from moe_operator.router_report import RouterReport

S = TypeVar("S")

# Who asked nobody for so long did not lead, or slept.
_GAP: Final = timedelta(seconds=60)


@dataclass(slots=True)
class Increments(Generic[S]):
    """`minus` subtracts sums; `stood` is where each router stood: pod -> (process, sums)."""

    minus: Callable[[S, S], S]
    stood: dict[str, tuple[str, S]] = field(default_factory=dict)
    heard: datetime | None = None

    def lapsed(self, now: datetime) -> bool:
        """Note that routers are heard; return whether what came meanwhile is of no known time."""
        before, self.heard = self.heard, now
        lapsed = before is None or now - before > _GAP
        if lapsed:
            self.stood = {}
        return lapsed

    def came(self, said: Iterable[tuple[RouterReport, S | None]]) -> Iterator[S]:
        """Give what each router counted since; all of them are to be taken."""
        stood, self.stood = self.stood, {}
        for report, now in said:
            known = stood.get(report.pod)
            if now is None:
                continue
            self.stood[report.pod] = report.incarnation, now
            if known is not None:
                yield self.minus(now, known[1]) if known[0] == report.incarnation else now
