"""One look at one mixture: observe, plan, apply, and say when to look again.

A step at a time, from what is observed alone; whatever it was killed in, the next look goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from moe_core.table import Table
from moe_operator.apply import Apply
from moe_operator.attending import attended
from moe_operator.cache import Cache, Key
from moe_operator.checkups import Checkups
from moe_operator.drifting import watched
from moe_operator.drifts import Drifts
from moe_operator.ends import Ends, ended
from moe_operator.evidence import Evidence
from moe_operator.intent import Plan
from moe_operator.kinds import ROUTING_TABLE, spec_of
from moe_operator.observe import observe
from moe_operator.pace import targets
from moe_operator.plan import plan_mixture
from moe_operator.prometheus import Sampler, Unasked
from moe_operator.questions import questions
from moe_operator.readings import Readings
from moe_operator.reports import Follower
from moe_operator.scalers import Scalers
from moe_operator.template import Settings
from moe_operator.window import Window
from moe_operator.world import World


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Looks at mixtures; one at a time for each."""

    cache: Cache
    reports: Follower
    apply: Apply
    settings: Settings
    now: Callable[[], datetime]
    samples: Sampler = field(default_factory=Unasked)
    scalers: Scalers = field(default_factory=Scalers)
    drifts: Drifts = field(default_factory=Drifts)
    checkups: Checkups = field(default_factory=Checkups)
    ends: Ends = field(default_factory=Ends)
    _evidence: dict[Key, Evidence] = field(default_factory=dict)
    _readings: dict[Key, Readings] = field(default_factory=dict)

    async def __call__(self, key: Key) -> datetime | None:
        """Take a mixture one step further. Returns when to look again without an event."""
        routers, workers = self.reports.routers(key), self.reports.workers(key)
        answers, readings = self.samples.answers(key), self._readings.setdefault(key, Readings())
        world = observe(self.cache, key, routers, workers, answers, readings)
        if world is None:
            await self._leave(key)
            return None
        refused, histories = self.apply.refused.get(key, {}), self.scalers.histories(key)
        drifts, checkups = self.drifts.histories(key), self.checkups.histories(key)
        world = replace(
            world, refused=refused, histories=histories, drifts=drifts, checkups=checkups
        )
        table = None if world.table is None else world.table.table
        windows = self._windows(key, world, table)
        plan = plan_mixture(world, windows, self.settings, self.now(), readings)
        after = _table_after(table, plan)
        self.reports.follow(key, targets(world, after))
        self.samples.follow(key, questions(world, after))
        self.scalers.follow(key, plan.sizes)
        self.drifts.follow(key, watched(world.gates, after))
        self.checkups.follow(key, attended(world.experts, after))
        try:
            await self.apply(key, world, plan)
        finally:  # it is stored, even where something after it was not
            if plan.table is not None and self._stored(key) == plan.table.epoch:
                self.ends.take(key, ended(table, plan.table, world.revisions, self.now()))
        if plan.table is not None:
            self._windows(key, world, after)  # what a step that begins now is counted from
        return plan.again_at

    def _windows(self, key: Key, world: World, table: Table | None) -> Mapping[str, Window]:
        if table is None:
            return {}
        return self._evidence.setdefault(key, Evidence()).windows(table, world.routers)

    def _stored(self, key: Key) -> object:
        """Return the epoch of the table that the API server is known to hold."""
        body = self.cache.get(ROUTING_TABLE, key.namespace, key.mixture)
        return None if body is None else spec_of(body).get("epoch")

    async def _leave(self, key: Key) -> None:
        self._evidence.pop(key, None)
        self._readings.pop(key, None)
        self.scalers.leave(key)
        self.drifts.leave(key)
        self.checkups.leave(key)
        self.apply.refused.pop(key, None)
        await self.reports.leave(key)
        await self.samples.leave(key)


def _table_after(before: Table | None, plan: Plan) -> Table | None:
    """Return the table as it stands once the plan is carried out."""
    if plan.table is None or before is None:
        return plan.table or before
    return replace(plan.table, uid=before.uid)
