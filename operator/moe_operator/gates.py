"""Which gates are served: each enters the table once every expert that it lists can serve.

A gate changes whole: version, layers, expert list and top-k in one epoch, or not at all. Of
several that claim a layer the oldest counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from moe_core.table import ExpertRow, GateRow, Role, Table
from moe_operator.admission import beyond, refused_specs
from moe_operator.overrides import because
from moe_operator.reason import Reason, Why
from moe_operator.spec import GateSpec, MixtureSpec, OverrideSpec
from moe_operator.world import World


@dataclass(frozen=True, slots=True)
class Gates:
    """The rows of the new table, and how far each Gate object is, by name."""

    rows: tuple[GateRow, ...]
    whys: Mapping[str, Why]

    def row(self, name: str) -> GateRow | None:
        return next((row for row in self.rows if row.name == name), None)


def rows_by_name(table: Table | None) -> dict[str, GateRow]:
    """Return the gates in service by the name of the Gate object."""
    return {} if table is None else {row.name: row for row in table.gates}


def coming(
    world: World,
    mixture: MixtureSpec,
    table: Table | None,
    restored: Mapping[str, tuple[OverrideSpec, GateRow]],
) -> Mapping[str, tuple[GateRow, ...]]:
    """Return the gates that are asked for and not in service, by the experts that they list."""
    before, found = rows_by_name(table), defaultdict[str, tuple[GateRow, ...]](tuple)
    for gate in world.gates:
        _, row = restored.get(gate.meta.name, (None, _row(gate, mixture)))
        if not gate.meta.deleting and row != before.get(row.name):
            for expert_id in row.experts:
                found[expert_id] += (row,)
    return found


def plan_gates(
    world: World,
    mixture: MixtureSpec,
    before: Mapping[str, GateRow],
    experts: Mapping[str, ExpertRow],
    stay: Mapping[str, Why],
    restored: Mapping[str, tuple[OverrideSpec, GateRow]],
) -> Gates:
    """Return the gates to serve, given the rows of the experts as they are to be.

    `before` are those in service; those in `stay` do not change now, for the reason given.
    `restored` are gates of an earlier epoch that a person asks for, by name.
    """
    whys = refused_specs(world, "Gate")
    rows = {name: before[name] for name in whys if name in before}
    owners = {layer: row.name for row in rows.values() for layer in row.layers}
    for gate in sorted(world.gates, key=lambda g: g.meta.age_key):
        if gate.meta.deleting:
            continue
        name = gate.meta.name
        override, wanted = restored.get(name, (None, _row(gate, mixture)))
        why = beyond(wanted.layers, mixture) or _conflict(wanted, owners)
        why = why or _missing(wanted, experts) or stay.get(name)
        row = before.get(name) if why else wanted
        if row is not None and _conflict(row, owners) is None:
            rows[name] = row
            owners |= dict.fromkeys(row.layers, name)
        whys[name] = why or _served(gate, wanted, override)
    return Gates(tuple(sorted(rows.values(), key=lambda row: row.name)), whys)


def _row(gate: GateSpec, mixture: MixtureSpec) -> GateRow:
    layers = gate.layers or tuple(range(mixture.layers))
    return GateRow(gate.meta.name, layers, gate.variant)


def _served(gate: GateSpec, row: GateRow, override: OverrideSpec | None) -> Why:
    version, wanted = row.stable.version, gate.version.version
    if override is None or version == wanted:
        return Why(Reason.COMPLETE, f"{version} is served")
    message = f"{version} is served instead of {wanted}: {because(override)}"
    return Why(Reason.OVERRIDDEN, message)


def _conflict(row: GateRow, owners: Mapping[int, str]) -> Why | None:
    for layer in row.layers:
        owner = owners.get(layer, row.name)
        if owner != row.name:
            return Why(Reason.CONFLICT, f"layer {layer} is that of the older Gate {owner}")
    return None


def _missing(row: GateRow, experts: Mapping[str, ExpertRow]) -> Why | None:
    """Return which of the listed experts keep the gate from being served."""
    unknown = [e for e in row.experts if e not in experts]
    if unknown:
        return Why(Reason.EXPERTS_MISSING, f"no Expert has the id {', '.join(unknown)}")
    dense = [e for e in row.experts if experts[e].role is Role.DENSE]
    if dense:
        message = f"{', '.join(dense)} has the role Dense, which stands in: no gate can pick it"
        return Why(Reason.INVALID_SPEC, message)
    starting = [e for e in row.experts if experts[e].stable is None]
    if starting:
        names = ", ".join(starting)
        return Why(
            Reason.EXPERTS_NOT_READY, f"{names} cannot serve yet: {row.stable.version} waits"
        )
    short = [e for e in row.experts if not set(row.layers) <= set(experts[e].layers)]
    if short:
        names = ", ".join(short)
        return Why(Reason.INVALID_SPEC, f"{names} does not serve all layers of this gate")
    return None
