"""What a router says of gates: to clients which there are, to the operator how they fare."""

from __future__ import annotations

import json
from collections.abc import Collection

from moe_core.rows import GateRow, GateVariant
from moe_router.gate_shadow import Scored
from moe_router.gate_tally import GateTallies, GateTally, LayerTally
from moe_router.scorings import Scorings
from moe_router.view import View
from moeops.v1 import router_pb2


def describe_gate(gate: GateRow) -> router_pb2.GateDescription:
    """Return a gate's stable version, and what some sessions use instead."""
    return router_pb2.GateDescription(
        name=gate.name,
        layers=gate.layers,
        version=gate.stable.version,
        sha256=gate.stable.sha256,
        experts=gate.stable.experts,
        top_k=gate.stable.top_k,
        policy=_policy(gate.stable),
        others=[_version(variant) for variant in gate.named if variant is not gate.stable],
    )


def _version(variant: GateVariant) -> router_pb2.GateVersion:
    return router_pb2.GateVersion(
        version=variant.version,
        sha256=variant.sha256,
        experts=variant.experts,
        top_k=variant.top_k,
        policy=_policy(variant),
    )


def _policy(variant: GateVariant) -> str:
    policy = variant.policy
    return "" if policy.plain else json.dumps(policy.to_dict())


def gate_counters(
    view: View, tallies: GateTallies, only: Collection[str], *, grouped: bool = False
) -> list[router_pb2.GateCounters]:
    """Return the counters of each version that a table names: of these artifacts, or of all.

    `grouped`: with pairs by group of sessions.
    """
    return [
        _counters(gate.name, variant.sha256, tallies.of(gate.name, variant.sha256), grouped)
        for gate in view.table.gates
        for variant in gate.named
        if not only or variant.sha256 in only
    ]


def _counters(name: str, sha256: str, tally: GateTally, grouped: bool) -> router_pb2.GateCounters:
    return router_pb2.GateCounters(
        gate=name,
        sha256=sha256,
        requests=tally.requests,
        failed_requests=tally.failed_requests,
        mass=tally.mass,
        lost_mass=tally.lost_mass,
        latency_counts=tally.latency_counts,
        session_pairs=tally.session_pairs,
        overflow_pairs=tally.overflow_pairs,
        overflow_sessions=tally.overflow_sessions,
        layers=[_layer(layer, one, grouped) for layer, one in sorted(tally.layers.items())],
    )


def _layer(layer: int, tally: LayerTally, grouped: bool) -> router_pb2.GateLayer:
    return router_pb2.GateLayer(
        layer=layer,
        rows=tally.rows,
        pairs=tally.pairs,
        overflow_pairs=tally.overflow_pairs,
        scored_rows=tally.scored_rows,
        entropy_sum=tally.entropy_sum,
        group_pairs=tally.groups.ravel() if grouped else (),
        contexts=[
            router_pb2.GateContext(
                context=name, rows=spread.rows, group_pairs=spread.groups.ravel()
            )
            for name, spread in sorted(tally.contexts.items())
            if grouped
        ],
    )


def gate_shadows(scorings: Scorings, only: Collection[str]) -> list[router_pb2.GateShadow]:
    """Return what candidates made of live rows: these artifacts, or all."""
    shadows: dict[tuple[str, str, str], router_pb2.GateShadow] = {}
    for of, scored in sorted(scorings.sums(), key=lambda one: one[0].layer):
        if not only or of.sha256 in only:
            blank = router_pb2.GateShadow(
                gate=of.gate, sha256=of.sha256, base_sha256=of.base_sha256
            )
            shadow = shadows.setdefault((of.gate, of.sha256, of.base_sha256), blank)
            shadow.layers.append(_shadow(of.layer, scored))
    return list(shadows.values())


def _shadow(layer: int, scored: Scored) -> router_pb2.ShadowLayer:
    return router_pb2.ShadowLayer(
        layer=layer,
        rows=scored.rows,
        overlap_sum=scored.overlap,
        divergence_sum=scored.divergence,
        entropy_sum=scored.entropy,
        base_entropy_sum=scored.base_entropy,
        pairs=scored.pairs,
        base_pairs=scored.base_pairs,
        overflow_pairs=scored.overflow_pairs,
        base_overflow_pairs=scored.base_overflow_pairs,
    )
