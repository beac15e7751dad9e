"""Overrides of a Mixture: which of its objects serve their version of an earlier epoch.

Such an Override holds for each object that it lists for as long as that object's spec.version is
the one that the person saw; of several that list an object the newest counts. An object that is
not listed follows its spec.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from moe_core.rollout import Version
from moe_core.rows import GateRow
from moe_core.table import Table
from moe_operator.override_spec import OverrideSpec, ReplacedKind, TargetKind
from moe_operator.overrides import State
from moe_operator.spec import ExpertSpec, GateSpec
from moe_operator.world import Snapshot, World

# What is said after it in a message is no longer so for these objects.
LAPSED_FOR: Final = "lapsed for "

# Of an Expert or a Gate, by kind and name.
Place = tuple[ReplacedKind, str]


@dataclass(frozen=True, slots=True)
class Restored:
    """What holds now: of Experts everything, the oldest first; of Gates the newest."""

    experts: Mapping[str, tuple[tuple[OverrideSpec, Version], ...]]
    gates: Mapping[str, tuple[OverrideSpec, GateRow]]


def restore(world: World) -> Restored:
    """Return what the Overrides of the Mixture ask of its objects."""
    objects, kept = _objects(world), {kept.epoch: kept for kept in world.snapshots}
    experts: defaultdict[str, tuple[tuple[OverrideSpec, Version], ...]] = defaultdict(tuple)
    gates: dict[str, tuple[OverrideSpec, GateRow]] = {}
    for override in _of_mixture(world):
        snapshot = kept.get(override.epoch)
        for (kind, name), instead_of in override.replaces.items():
            seen = objects.get((kind, name))
            if snapshot is None or seen is None or seen.version.version != instead_of:
                continue
            if kind is ReplacedKind.EXPERT and name in snapshot.experts:
                experts[name] = (*experts[name], (override, snapshot.experts[name]))
            row = snapshot.gate(name)
            if kind is ReplacedKind.GATE and row is not None:
                gates[name] = (override, row)
    return Restored(experts, gates)


def _of_mixture(world: World) -> list[OverrideSpec]:
    """Return the Overrides of the Mixture itself, the oldest first."""
    own = (o for o in world.overrides if o.kind is TargetKind.MIXTURE and not o.meta.deleting)
    return sorted(own, key=lambda override: override.meta.age_key)


def _objects(world: World) -> dict[Place, ExpertSpec | GateSpec]:
    return {
        **{(ReplacedKind.EXPERT, e.meta.name): e for e in world.experts},
        **{(ReplacedKind.GATE, g.meta.name): g for g in world.gates},
    }


class _Part(Enum):
    """How far one object is that an Override lists."""

    SERVED = auto()
    WAITING = auto()
    LAPSED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Restoring:
    """What the statuses of the Overrides follow from; `table` is the one that then holds."""

    world: World
    table: Table
    restored: Restored
    # What is decided for each Expert that counts: an Override of its own may be newer.
    decided: Mapping[str, OverrideSpec | None]

    def statuses(self) -> Iterator[tuple[OverrideSpec, dict[str, Any]]]:
        """Give the status of each Override of the Mixture."""
        for override in _of_mixture(self.world):
            state, message = self._state(override)
            yield (
                override,
                {
                    "state": state.value,
                    "message": message[:1024],
                    "observedGeneration": override.meta.generation,
                },
            )

    def _state(self, override: OverrideSpec) -> tuple[State, str]:
        epochs = {kept.epoch: kept for kept in self.world.snapshots}
        snapshot = epochs.get(override.epoch)
        if snapshot is None:
            known = ", ".join(map(str, epochs)) or "none"
            return State.REFUSED, f"epoch {override.epoch} is not kept; kept are {known}"
        objects = _objects(self.world)
        parts: dict[_Part, list[str]] = {part: [] for part in _Part}
        for place, instead_of in override.replaces.items():
            seen = objects.get(place)
            part, why = self._part(override, snapshot, place, seen, instead_of)
            parts[part].append(f"{place[1]}: {why}" if why else place[1])
        return _summary(override.epoch, parts)

    def _part(
        self,
        override: OverrideSpec,
        snapshot: Snapshot,
        place: Place,
        seen: ExpertSpec | GateSpec | None,
        instead_of: str,
    ) -> tuple[_Part, str]:
        kind, name = place
        if seen is None:
            return _Part.LAPSED, f"there is no such {kind.value} any more"
        if seen.version.version != instead_of:
            return _Part.LAPSED, f"spec.version is {seen.version.version}, no longer {instead_of}"
        if kind is ReplacedKind.EXPERT:
            return self._expert(override, snapshot, name)
        row = snapshot.gate(name)
        if row is None:
            return _Part.UNKNOWN, "it was not served in that epoch"
        newest, _ = self.restored.gates[name]
        if newest is not override:
            return _Part.LAPSED, f"Override {newest.meta.name} is newer"
        now = next((gate for gate in self.table.gates if gate.name == name), None)
        served = now is not None and now.stable == row.stable and now.candidate is None
        return (_Part.SERVED if served else _Part.WAITING), ""

    def _expert(self, override: OverrideSpec, snapshot: Snapshot, name: str) -> tuple[_Part, str]:
        version = snapshot.experts.get(name)
        if version is None:
            return _Part.UNKNOWN, "it was not served in that epoch"
        newest = self.decided.get(name)
        if newest is not None and newest is not override:
            return _Part.LAPSED, f"Override {newest.meta.name} is newer"
        row = next((row for row in self.table.experts if row.name == name), None)
        served = row is not None and row.stable is not None and not row.candidate
        done = served and row is not None and row.stable == version
        return (_Part.SERVED if done else _Part.WAITING), ""


def _summary(epoch: int, parts: Mapping[_Part, list[str]]) -> tuple[State, str]:
    served, waiting = parts[_Part.SERVED], parts[_Part.WAITING]
    said = []
    if waiting:
        ready = f"{len(served)} of {len(served) + len(waiting)}"
        said.append(f"{ready} serve their version of epoch {epoch}; {', '.join(waiting)} waits")
    elif served:
        said.append(f"what epoch {epoch} served is served")
    if parts[_Part.UNKNOWN]:
        said.append(f"not known for {'; '.join(parts[_Part.UNKNOWN])}")
    if parts[_Part.LAPSED]:
        said.append(f"{LAPSED_FOR}{'; '.join(parts[_Part.LAPSED])}")
    return _overall(parts), "; ".join(said)


def _overall(parts: Mapping[_Part, list[str]]) -> State:
    if parts[_Part.WAITING]:
        return State.PENDING
    if parts[_Part.SERVED]:
        return State.ACTIVE
    return State.LAPSED if parts[_Part.LAPSED] else State.REFUSED
