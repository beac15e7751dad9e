"""What `kubectl moe routing` shows: each version of each gate that a table names, with its load.

Reads the table's own words, and sums; decides which layers and experts are shown, and how many
are left out. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_moe.cluster import Body
from kubectl_moe.gate_loads import Load, Of
from kubectl_moe.names import UsageError

_ROLES = ("stable", "candidate", "previous")


@dataclass(frozen=True, slots=True)
class Routed:
    """A version of a gate; `loads` by layer, of layers that had rows."""

    gate: str
    version: str
    sha256: str
    role: str
    shadow: bool
    experts: tuple[str, ...]
    top_k: int
    loads: Mapping[int, Load]

    def to_json(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "version": self.version,
            "sha256": self.sha256,
            "role": self.role,
            "shadow": self.shadow,
            "topK": self.top_k,
            "experts": list(self.experts),
            "layers": [_layer(layer, load) for layer, load in sorted(self.loads.items())],
        }


def digests(table: Body) -> tuple[str, ...]:
    """Return the artifacts of all versions of gates that a RoutingTable names."""
    return tuple(variant["sha256"] for _, _, variant in _variants(table))


def routed(
    table: Body, loads: Mapping[Of, Load], gate: str | None, layer: int | None
) -> list[Routed]:
    """Return the versions of one gate or of all, with the loads of one layer or of all.

    What only scored rows in the shadow comes after what served. Raises UsageError where the
    table knows no such gate or layer.
    """
    _check(table, gate, layer)
    found = []
    for name, role, variant in _variants(table):
        if gate not in (None, name):
            continue
        for shadow in (False, True):
            own = {
                of.layer: load
                for of, load in loads.items()
                if (of.gate, of.sha256, of.shadow) == (name, variant["sha256"], shadow)
                and load.rows
                and layer in (None, of.layer)
                and len(load.pairs) == len(variant["experts"])
            }
            if own or (role == "stable" and not shadow):
                experts = tuple(variant["experts"])
                version, sha256, top_k = variant["version"], variant["sha256"], variant["topK"]
                found.append(Routed(name, version, sha256, role, shadow, experts, top_k, own))
    return found


def uneven(one: Routed, top: int) -> list[int]:
    """Return the `top` layers in which one expert has the largest share, in their own order."""
    layers = sorted(one.loads, key=lambda layer: (-max(one.loads[layer].shares), layer))
    return sorted(layers[:top])


def most(one: Routed, layer: int, top: int) -> list[int]:
    """Return the `top` experts with the largest share of a layer, the largest first."""
    shares = one.loads[layer].shares
    return sorted(range(len(shares)), key=lambda expert: (-shares[expert], expert))[:top]


def _variants(table: Body) -> Iterator[tuple[str, str, Body]]:
    for row in table["spec"]["gates"]:
        for role in _ROLES:
            if role in row:
                yield row["name"], role, row[role]


def _check(table: Body, gate: str | None, layer: int | None) -> None:
    rows = {row["name"]: row for row in table["spec"]["gates"]}
    if gate is not None and gate not in rows:
        known = ", ".join(rows) or "none"
        raise UsageError(f"--gate is {gate!r}; the gates of this mixture are {known}")
    chosen = rows.values() if gate is None else [rows[gate]]
    layers = sorted({number for row in chosen for number in row["layers"]})
    if layer is not None and layer not in layers:
        text = f"{layers[0]} to {layers[-1]}" if layers else "none"
        raise UsageError(f"--layer is {layer}; the layers with a gate are {text}")


def _layer(layer: int, load: Load) -> dict[str, Any]:
    return {
        "layer": layer,
        "rows": load.rows,
        "pairs": list(load.pairs),
        "loadEntropyBits": round(load.entropy, 4),
        "gateEntropyBits": None if load.gate_entropy is None else round(load.gate_entropy, 4),
        "overflowPairs": load.overflow_pairs,
        "overflowPercent": round(100 * load.overflow, 3),
    }
