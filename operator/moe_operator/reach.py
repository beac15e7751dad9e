"""What the routers of a mixture have and can reach, from their last reports.

Answers questions about epochs and links; decides nothing. A worker that is Ready is not yet
routable: only a live link at every ready router makes it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from moe_operator import labels
from moe_operator.epochs import next_epoch
from moe_operator.router_report import RouterReport
from moe_operator.world import World

# A report that is older says nothing about links any more; its epoch still holds.
_STALE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Reach:
    """The router pods that count, and what each said last.

    `ready` are the pods that serve; `bound` also those that ever had a table, by their reports,
    and may still serve by it unseen. One that never had any sends to nobody: a new router that
    cannot read its table keeps no old pods. `staying` are the worker pods that are there and not
    about to go: a link from the last report to any other one is none any more.
    """

    ready: tuple[str, ...]
    bound: tuple[str, ...]
    reports: Mapping[str, RouterReport]
    table_uid: str
    epoch: int  # of the stored table; 0 before there is one
    now: datetime
    staying: frozenset[str]
    next_epoch: int = 1  # of the table that takes its place
    # A router has a later epoch than what is seen: that is an old view, or it was put back from a
    # backup.
    overtaken: bool = False

    @classmethod
    def of(cls, world: World, now: datetime) -> Self:
        reports = {report.pod: report for report in world.routers}
        pods = [p for p in world.pods if p.component == labels.ROUTER and not p.deleting]
        table = world.table.table if world.table else None
        uid = table.uid if table else ""
        ahead = max((r.epoch for r in world.routers if uid and r.table_uid == uid), default=0)
        return cls(
            ready=tuple(pod.name for pod in pods if pod.ready),
            bound=tuple(
                pod.name
                for pod in pods
                if pod.ready or (pod.name in reports and reports[pod.name].may_route)
            ),
            reports=reports,
            table_uid=uid,
            epoch=table.epoch if table else 0,
            now=now,
            next_epoch=max(next_epoch(table, world.snapshots), ahead + 1),
            overtaken=table is not None and ahead > table.epoch,
            staying=_staying(world),
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """The ready routers that serve by their own copy of the table, whatever it is by now."""
        return tuple(pod for pod in self.ready if (r := self.reports.get(pod)) and r.kept)

    @property
    def unheard(self) -> tuple[str, ...]:
        """The ready routers that have said nothing yet: new ones, or all to a new operator."""
        return tuple(pod for pod in self.ready if pod not in self.reports)

    def behind(self, epoch: int) -> tuple[str, ...]:
        """Return the ready routers that have not reported this epoch."""
        return tuple(pod for pod in self.ready if not self._has(pod, epoch))

    def acknowledged(self, epoch: int) -> bool:
        """Return whether there are ready routers and all have reported this epoch."""
        return bool(self.ready) and not self.behind(epoch)

    def released(self, epoch: int) -> bool:
        """Return whether no router can still send by a table older than this epoch."""
        return all(self._has(pod, epoch) for pod in self.bound)

    def workers(self, sha256: str) -> int:
        """Return how many workers every ready router has a live link to, for this artifact."""
        links = [self._links(pod, sha256) for pod in self.ready]
        if not links or any(found is None for found in links):
            return 0
        return min(len(self.staying.intersection(found)) for found in links if found is not None)

    def lost(self, sha256: str) -> bool:
        """Return whether the routers are known to have no link for this artifact at all.

        False where nothing is known: a way back waits for nobody. A link that is silent is not
        lost yet: its worker may only get no processor for a moment.
        """
        links = [self._links(pod, sha256) for pod in self.ready]
        known = [found for found in links if found is not None]
        if any(sha256 in self.reports[pod].silent for pod in self.ready if pod in self.reports):
            return False
        return bool(known) and len(known) == len(links) and not any(known)

    def _has(self, pod: str, epoch: int) -> bool:
        report = self.reports.get(pod)
        return report is not None and report.table_uid == self.table_uid and report.epoch >= epoch

    def _links(self, pod: str, sha256: str) -> tuple[str, ...] | None:
        """Return the workers that a router offers; None where its report is missing or stale."""
        report = self.reports.get(pod)
        if report is None or self.now - report.at > _STALE:
            return None
        return tuple(report.workers.get(sha256, ()))


def _staying(world: World) -> frozenset[str]:
    """Return the worker pods that nobody deletes; those of a Deployment that is gone go with it."""
    kept = {(deployment.expert, deployment.digest) for deployment in world.deployments}
    return frozenset(
        pod.name
        for pod in world.pods
        if pod.component == labels.WORKER and not pod.deleting and (pod.expert, pod.digest) in kept
    )
