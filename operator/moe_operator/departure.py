"""What is left to do for a mixture that is gone: its table, its workers, and what it locked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from moe_operator import journal, labels
from moe_operator.children import delete
from moe_operator.evaluators import unwanted
from moe_operator.intent import Delete, Plan, Status
from moe_operator.override_spec import TargetKind
from moe_operator.overrides import waiting_status
from moe_operator.reason import Reason, Why
from moe_operator.spec import Meta
from moe_operator.status import refused_status
from moe_operator.world import World


def plan_departure(world: World, now: datetime) -> Plan:
    """Return how the traces of a mixture go; its routers go with it, being owned by it.

    Nothing goes while the Mixture is there and only cannot be read.
    """
    unreadable = [invalid for invalid in world.invalid if invalid.kind == "Mixture"]
    if unreadable:
        meta, wrong = unreadable[0].meta, Why(Reason.INVALID_SPEC, unreadable[0].sentence)
        return Plan(statuses=_status("Mixture", meta, wrong, now))
    why = Why(Reason.MIXTURE_MISSING, f"there is no Mixture {world.name} in {world.namespace}")
    workers = tuple(delete(d) for d in world.deployments if d.component == labels.WORKER)
    metas = [*(("Expert", e.meta) for e in world.experts), *(("Gate", g.meta) for g in world.gates)]
    evaluators = unwanted((p for p in world.pods if p.component == labels.EVALUATOR), kept="")
    return Plan(
        deletes=(*_table(world), *workers, *evaluators),
        statuses=(
            *(s for kind, meta in metas for s in _status(kind, meta, why, now)),
            *_overrides(world, why),
        ),
    )


def _overrides(world: World, why: Why) -> Iterator[Status]:
    there = {
        *((TargetKind.EXPERT, expert.meta.name) for expert in world.experts),
        *((TargetKind.GATE, gate.meta.name) for gate in world.gates),
    }
    for override in world.overrides:
        known = (override.kind, override.target) in there
        status = waiting_status(override, why if known else None)
        if not override.meta.deleting and status != override.meta.status:
            yield Status("Override", override.meta.name, status)


def _table(world: World) -> tuple[Delete, ...]:
    """Give the table, and only when it is gone its parts, without which it cannot be read."""
    if world.table is None:
        return tuple(map(journal.delete, world.parts))
    stored = world.table
    name = stored.table.mixture
    return (Delete("RoutingTable", name, stored.table.uid, stored.resource_version),)


def _status(kind: str, meta: Meta, why: Why, now: datetime) -> tuple[Status, ...]:
    status = refused_status(meta, why, now, in_use=None if kind == "Mixture" else False)
    return (Status(kind, meta.name, status),) if status != meta.status else ()
