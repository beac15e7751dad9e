"""Makes routing tables for tests, as objects and as files.

file = TableFile(directory / "table.yaml", table(experts=[expert("e0", VERSION)], gates=[…]))
file.write(other_table)  # as if the operator had written it
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from moe_core.policy import Policy
from moe_core.rollout import Version
from moe_core.rows import ExpertRow, GateRow, GateVariant, Role
from moe_core.table import Failover, Table

UID = "5b1f2f0e-6d7e-4a43-9a3e-0d9c0c1a7b11"


def version(name: str, sha256: str = "", uri: str = "file:///nowhere") -> Version:
    """Make a version; without a digest, one that is made up from its name."""
    return Version(name, sha256 or hashlib.sha256(name.encode()).hexdigest(), uri)


def expert(
    expert_id: str,
    stable: Version | None = None,
    *,
    role: Role = Role.ROUTED,
    layers: Sequence[int] = (0,),
    backup: str | None = None,
) -> ExpertRow:
    return ExpertRow(
        name=expert_id,
        expert_id=expert_id,
        role=role,
        layers=tuple(layers),
        backup=backup,
        stable=stable,
    )


def gate(
    experts: Sequence[str],
    *,
    top_k: int = 2,
    layers: Sequence[int] = (0,),
    stable: Version | None = None,
) -> GateRow:
    own = stable or version("gate-v1")
    variant = GateVariant(own.version, own.sha256, own.uri, tuple(experts), Policy(top_k))
    return GateRow("gate", tuple(layers), variant)


def table(
    experts: Sequence[ExpertRow],
    gates: Sequence[GateRow],
    *,
    hidden_size: int = 32,
    layers: int = 1,
    dtype: str = "BFloat16",
    epoch: int = 1,
    failover: Failover | None = None,
    mixture: str = "tiny",
) -> Table:
    return Table(
        mixture=mixture,
        uid=UID,
        epoch=epoch,
        hidden_size=hidden_size,
        layers=layers,
        dtype=dtype,
        trunk_sha256="",
        failover=failover or Failover(),
        gates=tuple(gates),
        experts=tuple(experts),
    )


def to_object(content: Table) -> dict[str, Any]:
    """Return the RoutingTable object that holds a table."""
    return {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "RoutingTable",
        "metadata": {"name": content.mixture, "namespace": "default", "uid": content.uid},
        "spec": content.to_spec(),
    }


class TableFile:
    """A file for a router's `--table-file`; each change gets the next epoch."""

    def __init__(self, path: Path, content: Table) -> None:
        self.path, self.table = path, content
        self._write()

    def write(self, content: Table) -> Table:
        """Write a table with the next epoch, in one piece; return it."""
        self.table = replace(content, epoch=self.table.epoch + 1)
        self._write()
        return self.table

    def _write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(yaml.safe_dump(to_object(self.table), sort_keys=False))
        part.replace(self.path)
