"""What a router says of the mixture that it serves, read once from the message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from moe_client.errors import MalformedAnswer
from moe_core.dtypes import UnknownDtype, by_wire
from moeops.v1 import router_pb2


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate as it is served: its artifact, and the experts in the order of its rows."""

    name: str
    layers: tuple[int, ...]
    version: str
    sha256: str
    experts: tuple[str, ...]
    top_k: int


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
        gates = tuple(
            Gate(g.name, tuple(g.layers), g.version, g.sha256, tuple(g.experts), g.top_k)
            for g in message.gates
        )
        return cls(
            name=message.mixture,
            table_uid=message.table_uid,
            epoch=message.epoch,
            hidden_size=message.hidden_size,
            layers=message.layers,
            dtype=dtype,
            trunk_sha256=message.trunk_sha256,
            gates=gates,
        )

    def gate_of(self, layer: int) -> Gate | None:
        """Return the gate of a layer, None where the mixture has none there."""
        return next((gate for gate in self.gates if layer in gate.layers), None)
