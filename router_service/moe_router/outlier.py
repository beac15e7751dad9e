"""Judges which workers are to be left alone for a while, by what they and their peers did.

Outlier ejection as service meshes know it, with two differences. Few workers hold an expert, often
two, so percentages mean little: each rule has an absolute minimum and compares with the workers
that hold the same artifacts. Answers that are not finite may be for the sake of the rows, whoever
computes them, so they have to be more than chance would give one worker of them. And what an
ejected worker holds alone it is still asked for: ejection only says whom to ask last
(`replica.Routable`), for at most half of those that hold an artifact.

Pure: `now_s` is an input. A worker comes back after a time that doubles with each ejection, at
first on trial: much less is enough then, and it is out again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from math import exp, log

from moe_router.conduct import Period

LOOK_S = 1.0  # the length of a period
PERIODS = 10  # that errors are remembered for
MIN_BAD = 3  # messages with answers that are not finite or could not be computed
CHANCE, CHANCE_ON_TRIAL = 0.001, 0.1  # that a worker like its peers gets so many of them
MIN_INCIDENTS = 5
MIN_SHARE = 0.01
PEERS_FACTOR = 4.0  # a share is that much above the peers'
MIN_SAMPLES = 5  # of the peers, for anything; of a worker, for its median time
# Five periods in a row: one computation of two seconds, and the line behind it, are three of them.
SLOW_PERIODS = 5
SLOW_BUCKETS = 3  # of the histogram, each of which doubles: more than four times the peers' median
SLOW_FROM_BUCKET = 7  # above 16 ms: below that, noise is as large
FIRST_EJECTION_S = 5.0
LONGEST_EJECTION_S = 300.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a worker stands. Ejected until `until_s`, for `reason`; on trial since `back_s`."""

    incarnation: str = ""
    periods: tuple[Period, ...] = ()
    slow: int = 0  # periods in a row; one that says nothing neither adds to them nor ends them
    ejections: int = 0
    until_s: float | None = None
    back_s: float | None = None
    reason: str = ""

    @property
    def ejected(self) -> bool:
        return self.until_s is not None

    @property
    def lasting_s(self) -> float:
        """How long an ejection lasts that is the last one so far."""
        return float(min(FIRST_EJECTION_S * 2 ** (self.ejections - 1), LONGEST_EJECTION_S))


def peers_of(held: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """Return for each worker the others that hold any of the artifacts that it holds."""
    holders: dict[str, set[str]] = {}
    for worker, artifacts in held.items():
        for sha256 in artifacts:
            holders.setdefault(sha256, set()).add(worker)
    return {
        worker: frozenset().union(*(holders[sha256] for sha256 in artifacts)) - {worker}
        for worker, artifacts in held.items()
    }


def look(
    standings: Mapping[str, Standing],
    periods: Mapping[str, Period],
    peers: Mapping[str, frozenset[str]],
    now_s: float,
) -> dict[str, Standing]:
    """Return how each worker of `periods` stands after one more period."""
    known = {worker: _remember(standings.get(worker), one) for worker, one in periods.items()}
    return {
        worker: _judge(worker, standing, known, peers.get(worker, frozenset()), now_s)
        for worker, standing in known.items()
    }


def _remember(standing: Standing | None, period: Period) -> Standing:
    if standing is None or standing.incarnation != period.incarnation:
        standing = Standing(period.incarnation)  # a new process has done nothing yet
    return replace(standing, periods=(*standing.periods, period)[-PERIODS:])


def _judge(
    worker: str,
    standing: Standing,
    known: Mapping[str, Standing],
    peers: frozenset[str],
    now_s: float,
) -> Standing:
    if standing.until_s is not None:
        if now_s < standing.until_s:
            return standing
        return replace(standing, until_s=None, back_s=now_s, periods=(), slow=0)
    others = [known[peer] for peer in sorted(peers) if peer in known]
    standing = replace(standing, slow=_slow(standing, others))
    objections = (check(standing, others) for check in CHECKS)
    reason = next((one for one in objections if one), None)
    if reason is not None:
        after = replace(standing, ejections=standing.ejections + 1, back_s=None, reason=reason)
        return replace(after, until_s=now_s + after.lasting_s)
    if standing.back_s is not None and now_s - standing.back_s >= standing.lasting_s:
        return replace(standing, ejections=0, back_s=None, reason="")
    return standing


def _bad_answers(standing: Standing, others: list[Standing]) -> str | None:
    """Object to answers that are not finite or could not be computed, where its peers can."""
    bad: Counter[str] = Counter()
    for period in standing.periods:
        bad.update(period.bad)
    asked = _total(standing, bad)
    peers_asked = sum(_total(one, bad) for one in others)
    peers_bad = sum(p.bad.get(sha256, 0) for one in others for p in one.periods for sha256 in bad)
    spoilt = sum(period.spoilt for period in standing.periods)
    minimum, chance = (MIN_BAD, CHANCE) if standing.back_s is None else (1, CHANCE_ON_TRIAL)
    if spoilt < minimum or not _stands_out(bad.total(), asked, peers_bad, peers_asked):
        return None
    if chance_of(spoilt, spoilt + peers_bad, asked / (asked + peers_asked)) > chance:
        return None
    return f"{bad.total()} of {asked} answers failed or not finite, of its peers {peers_bad}"


def chance_of(own: int, of: int, share: float) -> float:
    """Bound the chance that `own` or more of so many fall to one who gets `share` of everything.

    Chernoff's bound of the binomial tail, exact where all are its own. One where it is no more
    than its share.
    """
    part = own / of
    if part <= share:
        return 1.0
    others = 0.0 if own == of else (1 - part) * log((1 - part) / (1 - share))
    return exp(-of * (part * log(part / share) + others))


def _incidents(standing: Standing, others: list[Standing]) -> str | None:
    """Object to connections that break and answers that do not fit."""
    broken = sum(period.incidents for period in standing.periods)
    answers = sum(period.answers for period in standing.periods)
    peers_broken = sum(period.incidents for one in others for period in one.periods)
    peers_answers = sum(period.answers for one in others for period in one.periods)
    minimum = 1 if standing.back_s is not None else MIN_INCIDENTS
    if broken < minimum or not _stands_out(broken, answers + broken, peers_broken, peers_answers):
        return None
    return (
        f"{broken} broken connections or answers, {answers} whole ones, of its peers {peers_broken}"
    )


def _too_slow(standing: Standing, others: list[Standing]) -> str | None:
    """Object to a median that has been far above the peers' for some periods in a row."""
    minimum = 1 if standing.back_s is not None else SLOW_PERIODS
    if standing.slow < minimum:
        return None
    return f"{standing.slow} s in a row several times slower than its peers"


CHECKS = (_bad_answers, _incidents, _too_slow)


def _stands_out(bad: int, of: int, peers_bad: int, peers_of_: int) -> bool:
    if peers_of_ < MIN_SAMPLES:
        return False
    return bad / of >= MIN_SHARE and bad / of > PEERS_FACTOR * peers_bad / peers_of_


def _total(standing: Standing, artifacts: Iterable[str]) -> int:
    return sum(p.groups.get(sha256, 0) for p in standing.periods for sha256 in artifacts)


def _slow(standing: Standing, others: list[Standing]) -> int:
    """Return how many periods in a row have been slow, the last one with them."""
    period = standing.periods[-1]
    peers = [one.periods[-1] for one in others if one.periods]
    if period.stalled:
        answered = sum(one.answers for one in peers) >= MIN_SAMPLES
        return standing.slow + answered
    slow = compared = 0
    for size, times in period.times.items():
        theirs = [one.times[size] for one in peers if size in one.times]
        own, peer = _median_bucket([times]), _median_bucket(theirs)
        if own is None or peer is None:
            continue
        compared += sum(times)
        if own >= peer + SLOW_BUCKETS and own >= SLOW_FROM_BUCKET:
            slow += sum(times)
    if compared == 0:
        # Few answers say nothing, but that it does compute.
        return 0 if period.moved else standing.slow
    return standing.slow + 1 if 2 * slow > compared else 0


def _median_bucket(histograms: Iterable[tuple[int, ...]]) -> int | None:
    """Return the bucket of the median time; None of too few."""
    counts = [sum(bucket) for bucket in zip(*histograms, strict=True)]
    if sum(counts) < MIN_SAMPLES:
        return None
    middle = (sum(counts) + 1) // 2
    return next(bucket for bucket, seen in enumerate(accumulate(counts)) if seen >= middle)
