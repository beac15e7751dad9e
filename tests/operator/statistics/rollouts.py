"""Whole rollouts, simulated on recorded losses: a golden set, then a canary in steps.

Losses are drawn as they were recorded, pieces for a golden set and whole sessions for a canary;
verdicts are those of `moe_operator.quality`, at every look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from statistics import NormalDist, median

import numpy as np

from moe_operator import quality, sequential
from moe_operator.paired import Paired
from moe_operator.quality import Compared, GoldenResult
from moe_operator.sequential import Arm, Stratum
from moe_operator.verdict import Verdict
from tests.operator.statistics.recording import TOKENS, Floats, Recording

PIECES_AT_MOST = 4

Judge = Callable[[Sequence[Stratum], float], Verdict]
"""Verdict of outcomes in strata, under a margin in percent."""


class End(Enum):
    """How a rollout ended; `WAITING` is held with the numbers when its deadline is over."""

    PROMOTED = "promoted"
    TAKEN_BACK = "taken back"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Ended:
    """`sequences` of a golden set and `sessions` with `rows` bytes (of both arms) until the end."""

    end: End
    by: str
    sequences: int = 0
    sessions: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Canary:
    """Steps below 100% of at least `step_sessions`, looked at every `look` sessions.

    The last one of them lasts until outcomes pass or object, or `most` sessions were seen.
    """

    margin_percent: float = 1.0
    weights: Sequence[int] = (5, 25, 50)
    step_sessions: int = 2_000
    look: int = 200
    most: int = 40_000


OFTEN = Canary(margin_percent=0.0, step_sessions=2_000, look=50, most=6_000)
FEW = Canary(step_sessions=1_200, look=20, most=3_600)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What stable and one candidate make of every piece, and of every session in the recording.

    stable, candidate: (P,) mean loss of each piece. A session is 1 to 4 consecutive pieces of one
    domain; moments: (2, S, 6) of each, stable first: its count, w, x, ww, xx, wx.
    """

    stable: Floats
    candidate: Floats
    moments: Floats

    @classmethod
    def of(cls, recording: Recording, candidate: Floats) -> Traffic:
        spans = np.array(list(_spans(recording)))
        w = (spans[:, 1] - spans[:, 0]) * float(TOKENS)
        stable = recording.bits["stable"]
        arms = []
        for bits in (stable, candidate):
            upto = np.concatenate([[0.0], np.cumsum(bits * TOKENS)])
            x = upto[spans[:, 1]] - upto[spans[:, 0]]
            arms.append(np.stack([np.ones_like(w), w, x, w * w, x * x, w * x], axis=1))
        return cls(stable, candidate, np.stack(arms))

    def arrive(
        self, looks: int, each: int, weight: int, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Draw `each` sessions before every look; return sums until each, (looks, 6) an arm."""
        sessions = self.moments.shape[1]
        drawn = rng.integers(sessions, size=(looks, each))
        picked = rng.binomial(each, weight / 100, size=looks)  # sessions are alike: the first ones
        drawn += sessions * (np.arange(each) < picked[:, None])
        both = self.moments.reshape(2 * sessions, -1)
        upto = np.zeros((looks * each + 1, both.shape[1]))
        np.cumsum(both[drawn.ravel()], axis=0, out=upto[1:])
        begin = np.arange(looks) * each
        middle, end = begin + picked, begin + each
        candidate, stable = upto[middle] - upto[begin], upto[end] - upto[middle]
        return np.cumsum(candidate, axis=0), np.cumsum(stable, axis=0)


def _spans(recording: Recording) -> Iterator[tuple[int, int]]:
    """Yield first and past-the-last piece of every session."""
    domain = recording.domain
    for first in range(len(domain)):
        for last in range(first + 1, first + PIECES_AT_MOST + 1):
            if last <= len(domain) and domain[last - 1] == domain[first]:
                yield first, last


def evaluate(
    traffic: Traffic, sequences: int, rng: np.random.Generator, margin_percent: float = 1.0
) -> Verdict:
    """Judge by a golden set of so many pieces, drawn anew."""
    drawn = rng.integers(len(traffic.stable), size=sequences)
    stable, candidate = traffic.stable[drawn], traffic.candidate[drawn]
    apart = candidate - stable
    found = Paired(sequences, float(apart.mean()), float(apart.std(ddof=1)))
    compared = Compared(found, float(stable.mean()), float(candidate.mean()))
    return quality.golden(GoldenResult(compared, {}, 0.0), margin_percent)


def once_only(strata: Sequence[Stratum], _margin_percent: float) -> Verdict:
    """Object at the level of one look, whichever look it is: what the boundary is there to mend."""
    found = sequential.difference(strata)
    z = NormalDist().inv_cdf(1 - quality.OBJECTION_ALPHA)
    if found is not None and found.mean > z * math.sqrt(found.variance):
        return Verdict(False, "significant, says one look")
    return Verdict(None, "")


def ever_better(least: int = sequential.MIN_SESSIONS) -> Judge:
    """Return a judge that objects to any gain, by bounds that are tightest with few sessions."""

    def judge(strata: Sequence[Stratum], _margin_percent: float) -> Verdict:
        found = sequential.difference(strata, least)
        if found is not None and sequential.bounds(found, quality.PASS_ALPHA, 0.1)[1] < 0:
            return Verdict(False, "surely better")
        return Verdict(None, "")

    return judge


def run_canary(
    traffic: Traffic,
    canary: Canary,
    rng: np.random.Generator,
    judge: Judge = quality.outcomes,
) -> Ended:
    """Raise a candidate step by step, as long as outcomes do not object; see `Canary`."""
    done: list[Stratum] = []
    sessions, rows = 0, 0.0
    for weight in canary.weights:
        last = weight == canary.weights[-1]
        looks = (canary.most - sessions if last else canary.step_sessions) // canary.look
        candidate, stable = traffic.arrive(looks, canary.look, weight, rng)
        for arms in zip(candidate, stable, strict=True):
            now = Stratum(_arm(arms[0]), _arm(arms[1]))
            arrived = now.candidate.sessions + now.stable.sessions
            read = int(rows + now.candidate.w + now.stable.w)
            passed = judge((*done, now), canary.margin_percent).passed
            if passed is False:
                return Ended(End.TAKEN_BACK, "outcomes", 0, sessions + arrived, read)
            if passed and last and arrived >= canary.step_sessions:
                return Ended(End.PROMOTED, "outcomes", 0, sessions + arrived, read)
        done.append(now)
        sessions, rows = sessions + arrived, rows + now.candidate.w + now.stable.w
    return Ended(End.WAITING, "outcomes", 0, sessions, int(rows))


def roll_out(
    traffic: Traffic,
    rng: np.random.Generator,
    *,
    sequences: int = 512,
    canary: Canary | None = None,
) -> Ended:
    """Roll a version out by the golden set, and by outcomes where clients report them."""
    passed = evaluate(traffic, sequences, rng).passed
    if not passed:
        end = End.WAITING if passed is None else End.TAKEN_BACK
        return Ended(end, "golden set", sequences)
    if canary is None:
        return Ended(End.PROMOTED, "golden set", sequences)
    return replace(run_canary(traffic, canary, rng), sequences=sequences)


def repeat(times: int, seed: int, act: Callable[[np.random.Generator], Ended]) -> list[Ended]:
    """Do the same rollout so many times, with other draws each time."""
    rng = np.random.default_rng(seed)
    return [act(rng) for _ in range(times)]


def percent(ended: Sequence[Ended], end: End) -> float:
    return 100 * sum(each.end is end for each in ended) / len(ended)


def median_of(counts: Iterable[int]) -> int:
    """Return the median, 0 of none."""
    return round(median(list(counts) or [0]))


def _arm(sums: Floats) -> Arm:
    count, *rest = sums.tolist()
    return Arm(round(count), *rest)
