"""What a router says of the mixture that it serves, read once from the message."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from moe_client.errors import MalformedAnswer
from moe_core.document import Reader
from moe_core.dtypes import UnknownDtype, by_wire
from moe_core.policy import Policy
from moeops.v1 import router_pb2


@dataclass(frozen=True, slots=True)
class GateVersion:
    """A version of a gate: its artifact, and the experts in the order of its rows."""

    version: str
    sha256: str
    experts: tuple[str, ...]
    policy: Policy

    @classmethod
    def read(cls, message: router_pb2.GateDescription | router_pb2.GateVersion) -> Self:
        """Read a version. Raises MalformedAnswer."""
        name, policy = message.version, Policy(message.top_k)
        try:
            if message.policy:
                policy = Policy.read(Reader(json.loads(message.policy), "policy"))
        except ValueError as error:  # no JSON, or an InvalidDocument
            text = f"the router's description of gate version {name!r}: policy: {error}"
            raise MalformedAnswer(text) from None
        return cls(name, message.sha256, tuple(message.experts), policy)

    @property
    def top_k(self) -> int:
        return self.policy.top_k


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate as it is served: its stable version, and those that some sessions use instead."""

    name: str
    layers: tuple[int, ...]
    stable: GateVersion
    others: tuple[GateVersion, ...] = ()

    @classmethod
    def read(cls, message: router_pb2.GateDescription) -> Self:
        others = tuple(GateVersion.read(other) for other in message.others)
        return cls(message.name, tuple(message.layers), GateVersion.read(message), others)

    @property
    def version(self) -> str:
        return self.stable.version

    @property
    def sha256(self) -> str:
        return self.stable.sha256

    @property
    def experts(self) -> tuple[str, ...]:
        return self.stable.experts

    @property
    def top_k(self) -> int:
        return self.stable.top_k

    @property
    def versions(self) -> tuple[GateVersion, ...]:
        """All that is named of this gate, stable first."""
        return self.stable, *self.others

    def find(self, sha256: str) -> GateVersion | None:
        """Return the version of this artifact, None where the gate has none."""
        return next((v for v in self.versions if v.sha256 == sha256), None)


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture as it is served. `dtype` is its name as in the resources: `BFloat16`."""

    name: str
    table_uid: str
    epoch: int
    hidden_size: int
    layers: int
    dtype: str
    trunk_sha256: str
    gates: tuple[Gate, ...]

    @classmethod
    def read(cls, message: router_pb2.DescribeMixtureResponse) -> Self:
        """Read a router's answer. Raises MalformedAnswer."""
        if not message.mixture:
            raise MalformedAnswer("the router's description names no mixture")
        try:
            dtype = by_wire(message.dtype).name
        except UnknownDtype as error:
            raise MalformedAnswer(f"the router's description: {error}") from None
        return cls(
            name=message.mixture,
            table_uid=message.table_uid,
            epoch=message.epoch,
            hidden_size=message.hidden_size,
            layers=message.layers,
            dtype=dtype,
            trunk_sha256=message.trunk_sha256,
            gates=tuple(Gate.read(gate) for gate in message.gates),
        )

    def gate_of(self, layer: int) -> Gate | None:
        """Return the gate of a layer, None where the mixture has none there."""
        return next((gate for gate in self.gates if layer in gate.layers), None)

    def gate(self, name: str) -> Gate | None:
        """Return the gate of a name, None where the mixture has none."""
        return next((gate for gate in self.gates if gate.name == name), None)

    @property
    def tries_gates(self) -> bool:
        """Say whether sessions differ in their version of a gate."""
        return any(gate.others for gate in self.gates)
