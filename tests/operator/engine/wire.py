"""Brings events from the API server to the operator: late, twice, out of order, or never.

A fault says for each event after how many turns it arrives. What is lost is found when a later
event of the same object overwrites it, when the watch begins anew, or by the sweep.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from moe_operator.kinds import Body, Kind

# (number of the event, its type) -> turns after which it arrives, once for each; empty: lost.
Fault = Callable[[int, str], Sequence[int]]
Event = tuple[Kind, str | None, Body]
Place = tuple[Kind, str, str]


def none(number: int, event: str) -> Sequence[int]:
    """Every event arrives at once."""
    return (0,)


def late(turns: int) -> Fault:
    return lambda number, event: (turns,)


def twice(number: int, event: str) -> Sequence[int]:
    """The second time when others have come since."""
    return (0, 3)


def reordered(seed: int) -> Fault:
    """Some overtake others, also of the same object."""
    draw = random.Random(seed)
    return lambda number, event: (draw.randrange(5),)


def hidden(which: int) -> Fault:
    """One event is never told."""
    return lambda number, event: () if number == which else (0,)


def seldom(every: int, first: int) -> Fault:
    """Only one of so many events arrives: caches are stale all the time."""
    return lambda number, event: (0,) if number % every == first else ()


def no_deletions(number: int, event: str) -> Sequence[int]:
    return () if event == "DELETED" else (0,)


def silent(first: int, count: int) -> Fault:
    """The watch is silent for so many events; `Wire.anew_at` says when it begins anew."""
    return lambda number, event: () if first <= number < first + count else (0,)


@dataclass(slots=True)
class Wire:
    """The watch of one operator; `deliver` takes in what arrives."""

    deliver: Callable[[Kind, str | None, Body], None]
    fault: Fault = none
    anew_at: int = -1  # before the event of this number the watch begins anew, with a list
    objects: dict[Place, Body] = field(default_factory=dict)  # as they are
    lost: bool = False  # whether an event was, that no list has made good
    told: int = 0
    _log: list[Event] = field(default_factory=list)
    _base: dict[Place, Body] = field(default_factory=dict)
    _turn: int = 0
    _due: list[tuple[int, int, Event]] = field(default_factory=list)

    @property
    def pending(self) -> bool:
        return bool(self._due)

    def tell(self, kind: Kind, event: str, body: Body) -> None:
        """Take an event from the API server."""
        self.told += 1
        self._log.append((kind, event, body))
        _follow(self.objects, (kind, event, body))
        if self.told == self.anew_at:
            self.begin_anew()
        delays = self.fault(self.told, event)
        self.lost |= not delays
        for delay in delays:
            if delay:
                self._due.append((self._turn + delay, len(self._log), (kind, event, body)))
            else:
                self.deliver(kind, event, body)

    def turn(self) -> None:
        """Deliver what is due now."""
        self._turn += 1
        due = sorted((d for d in self._due if d[0] <= self._turn), key=lambda d: d[:2])
        self._due = [d for d in self._due if d[0] > self._turn]
        for _, _, event in due:
            self.deliver(*event)

    def begin_anew(self) -> None:
        """List everything, as after a 410: what is gone is not told."""
        for (kind, _, _), body in list(self.objects.items()):
            self.deliver(kind, None, body)

    def listed(self, lag: int) -> list[tuple[Kind, Body]]:
        """Return what an operator that starts is given, so many events old; the rest follows."""
        split = max(0, len(self._log) - lag)
        then = dict(self._base)
        for event in self._log[:split]:
            _follow(then, event)
        self._due = [(self._turn + 3, n, e) for n, e in enumerate(self._log[split:])]
        self.lost = False
        return [(place[0], body) for place, body in then.items()]

    def put_down(self) -> None:
        """Start from what there is."""
        self._base = dict(self.objects)
        self._log.clear()


def _follow(objects: dict[Place, Body], event: Event) -> None:
    kind, what, body = event
    meta = body["metadata"]
    place = (kind, str(meta.get("namespace", "")), str(meta["name"]))
    if what == "DELETED":
        objects.pop(place, None)
    else:
        objects[place] = body
