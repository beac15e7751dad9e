"""Reads how rollouts stand into metrics, from the status of Experts and Gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_core.metrics import Family, Labels, Point
from moe_core.rollout import Outcome
from moe_operator import metrics as m
from moe_operator.cache import Cache
from moe_operator.kinds import EXPERT, GATE, Body, Kind, metadata, mixture_of, status_of
from moe_operator.reason import moment

Block = tuple[Family, Iterable[Point]]
_UNDER_WAY = frozenset({Outcome.PROGRESSING.value, Outcome.PAUSED.value})


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A rollout under way: its labels, and what the status says of it."""

    labels: Labels
    status: Mapping[str, Any]
    rollout: Mapping[str, Any]


def rollout_metrics(cache: Cache) -> Iterator[Block]:
    """Give how many there are by outcome, and more of those under way."""
    bodies = [(kind, body) for kind in (EXPERT, GATE) for body in cache.all(kind)]
    yield m.ROLLOUTS, _by_outcome(bodies)
    going = [one for kind, body in bodies if (one := _under_way(kind, body)) is not None]

    def each(read: Callable[[_UnderWay], float]) -> Iterator[Point]:
        return ((one.labels, read(one)) for one in going)

    yield m.STEP, each(lambda one: int(one.rollout.get("step", 0)))
    yield m.STEPS, each(lambda one: int(one.rollout.get("steps", 0)))
    yield m.WEIGHT, each(lambda one: _ratio(str(one.status.get("weight", ""))))
    yield m.PAUSED, each(lambda one: int(one.rollout.get("outcome") == Outcome.PAUSED.value))
    yield m.STEP_BEGAN, each(lambda one: moment(str(one.rollout["began"])).timestamp())
    yield m.FINDINGS, _findings(going)


def _by_outcome(bodies: Iterable[tuple[Kind, Body]]) -> Iterator[Point]:
    """Those with no object are told too, so that the first one is a rise."""
    counts: Counter[Labels] = Counter()
    places = set[Labels]()
    for kind, body in bodies:
        place = (*_of(kind, body), kind.name)
        places.add(place)
        outcome = (status_of(body).get("rollout") or {}).get("outcome")
        if outcome:
            counts[(*place, str(outcome))] += 1
    for place in sorted(places):
        for known in Outcome:
            yield (*place, known.value), counts[(*place, known.value)]


def _under_way(kind: Kind, body: Body) -> _UnderWay | None:
    status = status_of(body)
    rollout = status.get("rollout") or {}
    if rollout.get("outcome") not in _UNDER_WAY:
        return None
    name, version = str(metadata(body).get("name", "")), str(rollout.get("version", ""))
    return _UnderWay((*_of(kind, body), kind.name, name, version), status, rollout)


def _of(kind: Kind, body: Body) -> Labels:
    return str(metadata(body).get("namespace", "")), mixture_of(kind, body)


def _ratio(weight: str) -> float:
    percent = weight.removesuffix("%")
    return int(percent) / 100 if percent.isdigit() else 0.0


def _findings(going: Iterable[_UnderWay]) -> Iterator[Point]:
    for one in going:
        found = one.rollout.get("evidence") or ()
        counts = Counter((str(f.get("tier", "")), str(f.get("state", ""))) for f in found)
        for (tier, state), count in sorted(counts.items()):
            yield (*one.labels, tier, state), count
