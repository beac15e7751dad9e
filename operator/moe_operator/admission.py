"""Which Expert objects count, and the rows of the table that they begin with.

What needs a look at other objects is judged here and ends as a condition with a sentence: two
objects with one id, layers that the mixture has not, a backup that does not exist. An object whose
spec cannot be used keeps the row that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from moe_core.rows import ExpertRow, GateRow, OnCold
from moe_core.table import Table
from moe_operator.reason import Reason, Why, written
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.world import World


@dataclass(frozen=True, slots=True)
class Admission:
    """The experts that count, in order of their ids, and why the others do not, by object name."""

    experts: tuple[ExpertSpec, ...]
    refused: Mapping[str, Why]


def admit(world: World, mixture: MixtureSpec) -> Admission:
    """Return which experts count: of several with one id the oldest."""
    refused = refused_specs(world, "Expert")
    owners: dict[str, ExpertSpec] = {}
    for expert in sorted(world.experts, key=lambda e: e.meta.age_key):
        if expert.meta.deleting:
            continue
        owner = owners.setdefault(expert.expert_id, expert)
        if owner is not expert:
            message = f"spec.expertId {expert.expert_id} is that of the older Expert "
            refused[expert.meta.name] = Why(Reason.CONFLICT, message + owner.meta.name)
        elif why := beyond(expert.layers, mixture):
            refused[expert.meta.name] = why
    admitted = (e for e in owners.values() if e.meta.name not in refused)
    return Admission(tuple(sorted(admitted, key=lambda e: e.expert_id)), refused)


def refused_specs(world: World, kind: str) -> dict[str, Why]:
    """Return the objects of a kind whose spec could not be read, with the sentence."""
    return {
        invalid.meta.name: Why(Reason.INVALID_SPEC, invalid.sentence)
        for invalid in world.invalid
        if invalid.kind == kind
    }


def beyond(layers: Iterable[int], mixture: MixtureSpec) -> Why | None:
    """Return why layers do not fit the mixture, if so."""
    outside = [str(layer) for layer in layers if layer >= mixture.layers]
    if not outside:
        return None
    message = f"spec.layers names {', '.join(outside)}; the mixture has 0 to {mixture.layers - 1}"
    return Why(Reason.INVALID_SPEC, message)


def opening_rows(
    experts: Iterable[ExpertSpec], table: Table | None, ids: frozenset[str]
) -> Iterator[ExpertRow]:
    """Give each expert's row as it stands, with what follows its spec at once.

    The layers of a version that is served change only with the next version. An object of another
    name that takes over an id starts anew.
    """
    before = {} if table is None else {row.expert_id: row for row in table.experts}
    for expert in experts:
        row = before.get(expert.expert_id)
        if row is None or row.name != expert.meta.name:
            row = ExpertRow(expert.meta.name, expert.expert_id, expert.role, expert.layers)
        backup = expert.backup if expert.backup in ids else None
        layers = expert.layers if row.stable is None else row.layers
        on_cold = expert.autoscaling.on_cold if expert.autoscaling else OnCold.DEGRADE
        yield replace(row, role=expert.role, backup=backup, layers=layers, on_cold=on_cold)


def closing_rows(
    rows: Mapping[str, ExpertRow],
    table: Table | None,
    gates: Iterable[GateRow],
    refused: Mapping[str, Why],
    now: datetime,
) -> tuple[ExpertRow, ...]:
    """Return all rows of the new table: those of the experts that count, and what must stay.

    The row of an object that cannot be read now stays as it was. An expert whose object is gone
    though a gate names it keeps an empty row, so that its backup is known.
    """
    listed = {expert_id for gate in gates for expert_id in gate.experts}
    kept = dict(rows)
    for row in () if table is None else table.experts:
        if row.expert_id in kept:
            continue
        if row.name in refused:
            kept[row.expert_id] = row
        elif row.expert_id in listed:
            kept[row.expert_id] = ExpertRow(
                row.name, row.expert_id, row.role, row.layers, row.backup
            )
    answering = listed | {row.backup for row in kept.values() if row.backup}
    before = {e for gate in (table.gates if table else ()) for e in gate.experts}
    return tuple(
        _idle(kept[expert_id], expert_id in answering, expert_id in before, now)
        for expert_id in sorted(kept)
    )


def _idle(row: ExpertRow, listed: bool, was_listed: bool, now: datetime) -> ExpertRow:
    """Note since when no gate lists an expert that one listed."""
    since = "" if listed else row.idle_since or (written(now) if was_listed else "")
    return row if since == row.idle_since else replace(row, idle_since=since)
