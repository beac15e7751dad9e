"""A fake router with several versions of a gate, and models that have each as their own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import torch
from torch import nn

from moe_artifacts.artifact import encode
from moe_artifacts.metadata import GateMetadata
from moe_client import use_local
from moe_client.tensors import to_numpy
from moe_core.kernel import element_type
from moe_core.policy import Policy
from moeops.v1 import router_pb2, types_pb2
from tests.client.tiny import EXPERTS, Served, describe, load_tiny, policy_text
from tests.fakes.router import Exchange, FakeRouter


@dataclass(frozen=True)
class Variant:
    """A version of the tiny model's gate."""

    version: str
    weights: tuple[torch.Tensor, ...]  # by layer, (E, H)
    experts: tuple[str, ...]
    top_k: int
    policy: Policy | None = None  # top-k alone where there is none

    @property
    def content(self) -> bytes:
        first = self.weights[0]
        layers = tuple(range(len(self.weights)))
        dtype = element_type(first.dtype).name
        metadata = GateMetadata(layers, first.shape[1], self.experts, self.own_policy, dtype)
        arrays = {f"layers.{n}.weight": to_numpy(weight) for n, weight in enumerate(self.weights)}
        return b"".join(bytes(piece) for piece in encode(metadata, arrays.__getitem__))

    @property
    def own_policy(self) -> Policy:
        return self.policy or Policy(self.top_k)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def fill(self, message: Any) -> Any:
        """Write it into a description."""
        message.version, message.sha256, message.top_k = self.version, self.sha256, self.top_k
        message.experts[:] = self.experts
        message.policy = policy_text(self.own_policy)
        return message


def own_gate(checkpoint: Path) -> Variant:
    """Return the gate of the checkpoint."""
    layers = load_tiny(checkpoint).model.layers
    return Variant("v1", tuple(layer.mlp.gate.weight.detach() for layer in layers), EXPERTS, 2)


def another_gate(
    checkpoint: Path, version: str, experts: Sequence[str] = EXPERTS, top_k: int = 2
) -> Variant:
    """Return a gate of random weights, a function of its name."""
    own = own_gate(checkpoint).weights
    generator = torch.Generator().manual_seed(int.from_bytes(version.encode(), "big"))
    shape = len(experts), own[0].shape[1]
    weights = (torch.randn(shape, generator=generator).to(own[0].dtype) for _ in own)
    return Variant(version, tuple(weights), tuple(experts), top_k)


def model_with(checkpoint: Path, gate: Variant) -> Any:
    """Return the whole model, in one process, with this gate as its own."""
    model = load_tiny(checkpoint)
    order = [EXPERTS.index(expert) for expert in gate.experts]
    for layer, weight in zip(model.model.layers, gate.weights, strict=True):
        router, experts = layer.mlp.gate, layer.mlp.experts
        router.weight = nn.Parameter(weight.clone())
        router.top_k, router.num_experts = gate.top_k, len(order)
        for name in ("gate_up_proj", "down_proj"):
            setattr(experts, name, nn.Parameter(getattr(experts, name)[order].detach().clone()))
        experts.num_experts = len(order)
    use_local(model)
    return model


@dataclass
class GatedRouter(FakeRouter):
    """Holds each session to its version: `pins` says which, else stable; a forced one may be any.

    `tell` changes what is served, as a new table would.
    """

    served: Served = field(default_factory=lambda: Served({}))
    variants: tuple[Variant, ...] = ()
    pins: dict[str, str] = field(default_factory=dict)
    begun: list[list[str]] = field(default_factory=list)

    @classmethod
    def of(cls, checkpoint: Path, stable: Variant, *others: Variant) -> GatedRouter:
        router = cls(describe(checkpoint), served=Served.of(load_tiny(checkpoint)))
        router.otherwise = router.act
        router.tell(stable, *others)
        return router

    def tell(self, stable: Variant, *others: Variant) -> None:
        self.variants = (stable, *others)
        self.gates = {variant.sha256: variant.content for variant in self.variants}
        description = router_pb2.DescribeMixtureResponse()
        description.CopyFrom(self.description)
        description.epoch += 1
        (gate,) = description.gates
        stable.fill(gate)
        del gate.others[:]
        for other in others:
            other.fill(gate.others.add())
        self.description = description

    def pin(self, session: str) -> str:
        wanted = self.pins.get(session, "")
        return wanted if wanted in self.gates else self.variants[0].sha256

    async def Begin(  # noqa: N802
        self, request: router_pb2.BeginRequest, context: Any
    ) -> router_pb2.BeginResponse:
        self.begun.append([one.session for one in request.sessions])
        sessions = [
            router_pb2.SessionGates(
                start_token=one.start_token or b"begun",
                gates=[router_pb2.GatePin(name="gate", sha256=self.pin(one.session))],
            )
            for one in request.sessions
        ]
        epoch = self.description.epoch
        return router_pb2.BeginResponse(table_uid="uid", epoch=epoch, sessions=sessions)

    async def act(self, exchange: Exchange) -> None:
        request = exchange.request
        assert isinstance(request, router_pb2.DispatchRequest)
        by_digest = {variant.sha256: variant for variant in self.variants}
        chosen = []
        for sequence in request.sequences:
            given = sequence.gate_sha256 or request.gate_sha256
            right = given if sequence.gate_forced else self.pin(sequence.session)
            if given != right or given not in by_digest:
                self.refuse(exchange, f"gate_sha256 is {given}; it must be {right}")
                return
            chosen += [by_digest[given]] * sequence.rows
        index = torch.frombuffer(bytearray(request.expert_index), dtype=torch.int32)
        rows = index.reshape(-1, request.top_k).tolist()
        own = [
            [EXPERTS.index(variant.experts[i]) if i >= 0 else -1 for i in row]
            for variant, row in zip(chosen, rows, strict=True)
        ]
        mapped = router_pb2.DispatchRequest()
        mapped.CopyFrom(request)
        mapped.expert_index = torch.tensor(own, dtype=torch.int32).numpy().tobytes()
        response = exchange.echo(token=b"begun")
        response.epoch = self.description.epoch
        response.hidden = self.served.answer(mapped)
        exchange.answer(response)

    def refuse(self, exchange: Exchange, message: str) -> None:
        number = grpc.StatusCode.FAILED_PRECONDITION.value[0]
        failure = types_pb2.Failure(code=number, message=message)
        exchange.answer(
            router_pb2.RowsResponse(
                request_id=exchange.request.request_id,
                failure=failure,
                epoch=self.description.epoch,
            )
        )
