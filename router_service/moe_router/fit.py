"""Says whether the artifact of a gate is what the table says of that gate. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from moe_artifacts.metadata import GateMetadata
from moe_core.rows import GateRow, GateVariant
from moe_core.table import Table


def misfit(table: Table, row: GateRow, variant: GateVariant, metadata: GateMetadata) -> str:
    """Return how an artifact differs from a variant of a row, in one sentence; empty if it fits."""
    if metadata.hidden_size != table.hidden_size:
        own, wanted = metadata.hidden_size, table.hidden_size
        return f"the artifact's hiddenSize is {own}; the table's is {wanted}"
    layers = row.layers or tuple(range(table.layers))
    missing = sorted(set(layers) - set(metadata.layers))
    if missing:
        return f"the artifact's layers are {list(metadata.layers)}; the table names {missing} too"
    if metadata.policy.top_k != variant.top_k:
        return f"the artifact's topK is {metadata.policy.top_k}; the table's is {variant.top_k}"
    if metadata.policy != variant.policy:
        own_policy, named = metadata.policy.to_dict(), variant.policy.to_dict()
        return f"the artifact's policy is {own_policy}; the table's is {named}"
    return _differing(metadata.experts, variant.experts)


def _differing(own: Sequence[str], named: Sequence[str]) -> str:
    if len(own) != len(named):
        return f"the artifact's experts are {len(own)}; the table names {len(named)}"
    for index, (there, here) in enumerate(zip(own, named, strict=True)):
        if there != here:
            return f"the artifact's experts[{index}] is {there!r}; the table says {here!r}"
    return ""
