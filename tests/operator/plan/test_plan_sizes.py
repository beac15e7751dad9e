"""Objects of a mixture of 3,000 experts: none is too large to be stored."""

from __future__ import annotations

import json
from dataclasses import replace

from moe_core.parts import LARGEST_BYTES
from moe_core.rollout import Outcome, Rollout, Version
from moe_core.rows import GateVariant
from moe_core.table import Table
from moe_operator.cache import Key
from moe_operator.epochs import unkept
from moe_operator.journal import writing
from moe_operator.snapshots import to_body
from moe_operator.world import World
from tests.support.tables import expert, gate, table

ETCD_BYTES = 1_500_000
URI = "https://artifacts.example.org/mixtures/tiny/experts/"


def version(name: str) -> Version:
    sha256 = name[-1] * 64
    return Version(name, sha256, f"{URI}{sha256}.safetensors")


def large() -> Table:
    """Thirty layers of 100 experts, every one of which is on trial."""
    target = version("v2")
    rollout = Rollout(2, target, 1, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "w" * 200, "salt")
    ids = [f"layer-{n // 100:02}-expert-{n:04}" for n in range(3000)]
    rows = [replace(expert(name, version("v1")), candidate=target, rollout=rollout) for name in ids]
    gates = []
    for layer in range(30):
        row = gate(ids[100 * layer : 100 * (layer + 1)], layers=(layer,))
        variant = row.stable
        assert isinstance(variant, GateVariant)
        accepts = dict.fromkeys(variant.experts, ("v1", "v2", "v3"))
        both = replace(variant, accepts=accepts)
        gates.append(replace(row, name=f"gate-{layer:02}", stable=both, candidate=both))
    return table(rows, gates, layers=30)


def size(body: object) -> int:
    return len(json.dumps(body))


def test_no_object_of_three_thousand_experts_is_too_large() -> None:
    made = large()
    world = World("default", "tiny", None, None, (), (), (), (), (), (), (), ())
    written = writing(world, made, LARGEST_BYTES)
    assert len(written.parts) == 17
    assert size(made.to_spec()) > 2 * ETCD_BYTES
    (kept,) = unkept(made, ())
    owner = {"metadata": {"uid": "uid-tiny", "name": "tiny"}}
    bodies = (written.table, *written.parts, to_body(kept, Key("default", "tiny"), owner))
    assert max(map(size, bodies)) < ETCD_BYTES
