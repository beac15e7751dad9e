"""How many replicas the load of an expert asks for, and when to follow it: up soon, down late.

The ratio, its tolerance and the stabilization windows are those of the HorizontalPodAutoscaler, a
short window for panic beside the long one is Knative's (KPA). Other than there, what waits in line
is part of the load: busy time alone says no more than "all of it". A total function of samples and
time; it writes nothing and knows no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from moe_core.worker_load import Load, Sample, average, window
from moe_operator.autoscaling import Autoscaling

# A load that is hardly above the target is no reason to add one (as in the HPA).
_TOLERANCE: Final = 0.1
# How many times the replicas a load must ask for to be followed at once (as in Knative).
_PANIC: Final = 2.0
# From here on a worker is busy all the time, and its queue tells nothing of how long it would be.
_SATURATED: Final = 0.9
_IDLE: Final = 0.05
# Equal requests at random moments wait half as long as random ones.
_EVEN: Final = 0.5
# Samples that are older say nothing of now.
_STALE: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Peak:
    """What was asked for at a moment, and for no more since."""

    at: datetime
    replicas: int


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one expert, in memory only: an operator that starts anew has none.

    `samples` reach back over the longest average, `peaks` over the window before a decrease, each
    lower than the one before it. `changed` is when it was seen to have another number of
    `replicas`. `long` and `short` are the averages up to the last sample; None before so much was
    seen, when what there is counts as asked for. `missed` is how often routers had nobody to ask
    while it slept, by pod and incarnation, when each was heard first; `wanted` that it was more
    later.
    """

    samples: tuple[Sample, ...] = ()
    peaks: tuple[Peak, ...] = ()
    replicas: int = 0
    changed: datetime | None = None
    long: Load | None = None
    short: Load | None = None
    missed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    wanted: bool = False

    def knows(self, now: datetime) -> bool:
        """Return whether what was heard last still holds."""
        return bool(self.samples) and now - self.samples[-1].at <= _STALE


@dataclass(frozen=True, slots=True)
class Size:
    """How many replicas an expert is to have; `floor` is what it is not to go below for now.

    `pods` are those that are ready, by name. `why` is empty where the number stays as it was.
    `full` is why some pods find no node; then no more of them are asked for. `sleeper` is the
    sha256 of what is served by nobody, as long as no row comes for it.
    """

    autoscaling: Autoscaling
    replicas: int
    floor: int
    pods: frozenset[str]
    why: str = ""
    full: str = ""
    sleeper: str = ""


def asked(spec: Autoscaling, load: Load) -> float:
    """Return the replicas that a load asks for: to be on target, and what waits done soon."""
    if not load.offered and not load.backlog_s:
        return 0.0
    if spec.utilization is not None:
        on_target = load.offered / spec.utilization
    else:
        on_target = _for_delay(spec.delay_ms or 0.0, spec.high, load)
    return on_target + load.backlog_s / spec.panic_s


def _for_delay(delay_ms: float, high: int, load: Load) -> int:
    """Return the fewest workers at which attempts wait no longer, one more than `high` at most.

    How bursty arrivals and uneven service times are is what was measured, over what the formula
    says of random ones; where workers are idle or full, they tell nothing of it.
    """
    rho, bursts = load.utilization, 1.0
    if _IDLE <= rho < _SATURATED:
        expected_ms = queue_ms(rho, load.workers, load.service_ms)
        bursts = max(load.delay_ms / expected_ms, _EVEN) if expected_ms else 1.0
    fewest = max(1, math.ceil(load.offered / _SATURATED))
    for workers in range(fewest, high + 1):
        wait_ms = queue_ms(load.offered / workers, workers, load.service_ms)
        if bursts * wait_ms <= delay_ms:
            return workers
    return max(fewest, high + 1)


def queue_ms(rho: float, workers: float, service_ms: float) -> float:
    """Return the mean wait for one of several workers, each busy for a share rho (0 to 1) of time.

    Sakasegawa (1977), for random arrivals and service times: s·ρ^(√(2(m + 1)) - 1) / (m(1 - ρ)).
    """
    power = math.sqrt(2 * (workers + 1)) - 1
    return service_ms * math.pow(rho, power) / (workers * (1 - rho))


def remember(history: History, heard: Sample, size: Size) -> History:
    """Return the history with one more sample; after a gap it begins anew."""
    spec = size.autoscaling
    before = history if history.knows(heard.at) else History()
    samples = (*before.samples, heard)
    samples = tuple(window(samples, spec.window_s)) or samples
    long, short = average(samples, spec.window_s), average(samples, spec.panic_s)
    wanted = size.replicas if long is None else math.ceil(asked(spec, long))
    if short is not None and _urgent(spec, short, size.replicas):
        wanted = max(wanted, math.ceil(asked(spec, short)))
    if len(heard.workers) < len(size.pods):
        wanted = max(wanted, size.replicas)  # nobody knows what the others bear
    oldest = heard.at - timedelta(seconds=_quiet_s(spec))
    peaks = (p for p in before.peaks if p.replicas > wanted and p.at >= oldest)
    return History(
        samples=samples,
        peaks=(*peaks, Peak(heard.at, wanted)),
        replicas=size.replicas,
        changed=before.changed if before.replicas == size.replicas else heard.at,
        long=long,
        short=short,
    )


def miss(
    history: History, misses: Mapping[tuple[str, str], int], *, waiting: bool = False
) -> History:
    """Return the history of a sleeper with what routers say now of rows that came for it.

    What they count is compared with what was heard first; rows that are `waiting` for it speak for
    themselves.
    """
    known = history.missed
    more = any(count > known[router] for router, count in misses.items() if router in known)
    return History(missed={**misses, **known}, wanted=history.wanted or more or waiting)


def scale(history: History, size: Size, now: datetime) -> tuple[int, str]:
    """Return how many replicas there are to be now, and why if that is another number."""
    spec, current = size.autoscaling, size.replicas
    if size.sleeper:
        return (1, "rows came for it while it slept") if history.wanted else (0, "")
    if not history.knows(now):
        return current, ""
    wanted, why = _raised(history, size)
    if spec.clamp(wanted) > current:
        return (current, "") if size.full else (spec.clamp(wanted), why)
    if history.changed is None or now - history.changed < timedelta(seconds=spec.window_s):
        return current, ""
    peak = max((peak.replicas for peak in history.peaks), default=current)
    lower = max(spec.clamp(peak), size.floor)
    if lower >= current:
        return current, ""
    return lower, f"the load of {_quiet_s(spec)} s asked for {peak} replicas at most"


def _quiet_s(spec: Autoscaling) -> int:
    """Return the seconds before a decrease; panic holds for the long window in any case."""
    return max(spec.down_s, spec.window_s)


def _raised(history: History, size: Size) -> tuple[int, str]:
    """Return what is asked for beyond tolerance, soon or urgently, and by what load."""
    spec, current = size.autoscaling, size.replicas
    long, short = history.long, history.short
    found, why = current, ""
    if long is not None and asked(spec, long) > current * (1 + _TOLERANCE):
        found, why = math.ceil(asked(spec, long)), _said(spec, long, spec.window_s)
    if short is not None and _urgent(spec, short, current) and asked(spec, short) > found:
        found, why = math.ceil(asked(spec, short)), _said(spec, short, spec.panic_s)
    return found, why


def _urgent(spec: Autoscaling, load: Load, current: int) -> bool:
    """Return whether a load cannot wait: far above what there is, or nobody has any time left."""
    return asked(spec, load) >= _PANIC * current or load.utilization >= _SATURATED


def _said(spec: Autoscaling, load: Load, seconds: int) -> str:
    """Say in words what a load was, and what it asks for."""
    busy, waits = f"busy {load.utilization:.0%}", f"waiting {load.delay_ms:.1f} ms"
    target = f"{spec.utilization:.0%} busy" if spec.utilization else f"{spec.delay_ms} ms"
    asks = f"{math.ceil(asked(spec, load))} replicas for {target}"
    line = f"{load.backlog_s:.1f} s of work in line"
    return f"{load.workers:.1f} workers {busy}, {waits}, {line}, over {seconds} s: asks for {asks}"
