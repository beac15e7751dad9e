"""What each version of each expert bears, as `kubectl moe top` shows it: pure.

Replicas are those of its Deployment; loads are differences of what its workers counted, as the
operator's autoscaling takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kubectl_moe.gate_loads import Reading
from kubectl_moe.tree import (
    DIGEST_LABEL,
    EXPERT_LABEL,
    MIXTURE_LABEL,
    VERSION_LABEL,
    labels,
    role_of,
)
from moe_core.worker_load import Load, Sample, WorkerLoad, over, readings, sample

Body = Mapping[str, Any]
_BEGAN: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was at one moment of a clock: objects of a namespace, and what routers said."""

    at: float
    experts: Sequence[Body]
    deployments: Sequence[Body]
    pods: Sequence[Body]
    readings: tuple[Reading, ...]
    silent: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Borne:
    """One version of an expert. `load` is None where no worker of it was heard twice."""

    expert: str
    expert_id: str
    mixture: str
    version: str
    digest: str
    role: str
    wanted: int
    ready: int
    heard: int
    queued_rows: int
    load: Load | None

    def to_json(self) -> dict[str, Any]:
        load = self.load
        return {
            "expert": self.expert,
            "expertId": self.expert_id,
            "mixture": self.mixture,
            "version": self.version,
            "digest": self.digest,
            "role": self.role,
            "replicas": {"wanted": self.wanted, "ready": self.ready, "heard": self.heard},
            "load": load and round(load.offered, 4),
            "utilizationPercent": load and round(100 * load.utilization, 2),
            "queueDelayMilliseconds": load and round(load.delay_ms, 3),
            "serviceMilliseconds": load and round(load.service_ms, 3),
            "rowsPerSecond": load and round(load.rows_per_s, 2),
            "queuedRows": self.queued_rows,
            "backlogSeconds": load and round(load.backlog_s, 4),
        }


@dataclass(frozen=True, slots=True)
class _Said:
    """A router's report, as loads are made of."""

    at: datetime
    loads: Mapping[str, WorkerLoad]


def borne(seen: Sequence[Seen], mixture: str) -> list[Borne]:
    """Return each version that has or wants pods, of one mixture or of all, as it was in the end.

    `seen` are the moments of a window; its load is what came from the first of them to the last.
    """
    last, heard = seen[-1], [_heard(one) for one in seen]
    experts = {body["metadata"]["name"]: body for body in last.experts}
    found = []
    for deployment in last.deployments:
        of = labels(deployment)
        expert = experts.get(of.get(EXPERT_LABEL, ""))
        if expert is None or mixture not in ("", of.get(MIXTURE_LABEL)):
            continue
        names = [pod["metadata"]["name"] for pod in last.pods if _is_of(pod, of)]
        if names or deployment["spec"].get("replicas", 0):
            found.append(_borne(deployment, expert, names, _samples(seen, heard, names)))
    return found


def _borne(deployment: Body, expert: Body, pods: Sequence[str], samples: Sequence[Sample]) -> Borne:
    of, digest = labels(deployment), labels(deployment).get(DIGEST_LABEL, "")
    known = samples[-1].workers
    load = over(samples) if known and samples[-1].at > samples[0].at else None
    return Borne(
        expert=expert["metadata"]["name"],
        expert_id=expert["spec"]["expertId"],
        mixture=of.get(MIXTURE_LABEL, ""),
        version=of.get(VERSION_LABEL, digest),
        digest=digest,
        role=role_of(digest, expert),
        wanted=deployment["spec"].get("replicas", 0),
        ready=deployment.get("status", {}).get("readyReplicas", 0),
        heard=len(known),
        queued_rows=samples[-1].queued_rows,
        load=load if load is not None and load.workers else None,
    )


def _heard(seen: Seen) -> Mapping[str, Any]:
    said = [_Said(_moment(one.at), one.workers) for one in seen.readings]
    return readings(said)


def _samples(
    seen: Sequence[Seen], heard: Iterable[Mapping[str, Any]], pods: Sequence[str]
) -> list[Sample]:
    found: list[Sample] = []
    for one, known in zip(seen, heard, strict=True):
        found.append(sample(_moment(one.at), known, pods, found[-1] if found else None))
    return found


def _moment(seconds: float) -> datetime:
    return _BEGAN + timedelta(seconds=seconds)


def _is_of(pod: Body, of: Mapping[str, str]) -> bool:
    mine = labels(pod)
    return all(mine.get(key) == of.get(key) for key in (EXPERT_LABEL, DIGEST_LABEL))


_KEYS: Final[Mapping[str, Callable[[Borne], float]]] = {
    "load": lambda one: one.load.offered if one.load else -1,
    "util": lambda one: one.load.utilization if one.load else -1,
    "delay": lambda one: one.load.delay_ms if one.load else -1,
    "rows": lambda one: one.load.rows_per_s if one.load else -1,
    "queued": lambda one: one.queued_rows,
    "ready": lambda one: one.wanted - one.ready,
    "name": lambda _: 0,
}


def ordered(found: Iterable[Borne], key: str) -> list[Borne]:
    """Return them with the most of something first, by `ready` the most that are missing."""
    return sorted(found, key=lambda one: (-_KEYS[key](one), one.expert, one.version))


def cells(one: Borne, *, wide: bool) -> Iterator[str]:
    """Give what a line shows, as `titles` names it."""
    load = one.load
    yield from (one.expert, one.version, one.role, f"{one.ready}/{one.wanted}")
    yield f"{100 * load.utilization:.0f}%" if load else "-"
    yield f"{load.offered:.2f}" if load else "-"
    yield _time(load.delay_ms) if load else "-"
    yield _number(load.rows_per_s) if load else "-"
    yield str(one.queued_rows) if one.heard else "-"
    if wide:
        yield from (one.mixture, one.expert_id, one.digest, f"{one.heard}")
        yield _time(load.service_ms) if load else "-"
        yield _time(1e3 * load.backlog_s) if load else "-"


def titles(*, wide: bool) -> list[str]:
    shown = ["EXPERT", "VERSION", "ROLE", "READY", "UTIL", "LOAD", "DELAY", "ROWS/S", "QUEUED"]
    more = ["MIXTURE", "ID", "DIGEST", "HEARD", "SERVICE", "BACKLOG"]
    return [*shown, *more] if wide else shown


def _time(milliseconds: float) -> str:
    """Return a time as people read it: 0.4ms, 12ms, 3.1s."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f}s"
    return f"{milliseconds:.1f}ms" if milliseconds < 9.95 else f"{milliseconds:.0f}ms"


def _number(rate: float) -> str:
    return f"{rate:,.1f}" if rate < 99.95 else f"{rate:,.0f}"
