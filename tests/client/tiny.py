"""A tiny random Mixtral, what a router would say of it, and a fake router that computes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from moe_artifacts.artifact import sha256_of
from moe_artifacts.checkpoint import open_checkpoint
from moe_artifacts.parts import make_gate
from moe_artifacts.trunk import trunk_sha256
from moe_client.site import find_sites
from moe_client.tensors import to_numpy, to_torch
from moe_core.combine import combine
from moe_core.dtypes import by_numpy, by_wire
from moe_core.exactness import prove
from moe_core.kernel import ExpertKernel
from moe_core.policy import Policy
from moeops.v1 import router_pb2
from tests.fakes.router import Action, Exchange

EXPERTS = tuple(f"e{number}" for number in range(4))
VOCABULARY = 64
MIXTURE = "tiny"


def save_tiny(directory: Path, dtype: torch.dtype, seed: int = 0) -> Path:
    """Write the checkpoint of a random model: two layers, four experts, top-2."""
    torch.manual_seed(seed)
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=len(EXPERTS),
        num_experts_per_tok=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model: Any = MixtralForCausalLM(config)
    model.to(dtype).save_pretrained(directory)
    return directory


def load_tiny(directory: Path) -> Any:
    """Return the model in its stored dtype."""
    model: Any = MixtralForCausalLM.from_pretrained(directory, dtype="auto")
    return model.eval()


def policy_text(policy: Policy) -> str:
    """Return what a router says of a gate's policy."""
    return "" if policy.plain else json.dumps(policy.to_dict())


def describe(directory: Path) -> router_pb2.DescribeMixtureResponse:
    """Return what a router says of the checkpoint."""
    checkpoint = open_checkpoint(directory)
    gate = make_gate(checkpoint, EXPERTS)
    dtype = by_numpy(checkpoint.gate(0).dtype)
    layers = checkpoint.architecture.layers
    return router_pb2.DescribeMixtureResponse(
        mixture=MIXTURE,
        table_uid="uid",
        epoch=7,
        hidden_size=checkpoint.architecture.hidden_size,
        layers=layers,
        dtype=dtype.wire,
        trunk_sha256=trunk_sha256(checkpoint.trunk()),
        gates=[
            router_pb2.GateDescription(
                name="gate",
                layers=range(layers),
                version="v1",
                sha256=sha256_of(gate.metadata, gate.lookup),
                experts=EXPERTS,
                top_k=checkpoint.architecture.top_k,
                policy=policy_text(checkpoint.architecture.policy),
            )
        ],
    )


@dataclass(frozen=True)
class Served:
    """The experts of a model as workers would hold them."""

    kernels: dict[int, list[ExpertKernel]]

    @classmethod
    def of(cls, model: Any) -> Served:
        kernels = {}
        for site in find_sites(model):
            experts: Any = site.experts
            size = experts.down_proj.shape[2]
            rule = prove(model.dtype, experts.down_proj.shape[1], size)
            kernels[site.layer] = [
                ExpertKernel(up[:size], up[size:], down, rule)
                for up, down in zip(experts.gate_up_proj, experts.down_proj, strict=True)
            ]
        return cls(kernels)

    def answer(self, request: router_pb2.DispatchRequest) -> bytes:
        """Return the combined rows of a request."""
        dtype = by_wire(request.dtype).numpy
        shape = (-1, request.top_k)
        hidden = np.frombuffer(request.hidden, dtype).reshape(-1, request.hidden_size)
        index = np.frombuffer(request.expert_index, np.int32).reshape(shape)
        weights_dtype = by_wire(request.weights_dtype).numpy
        weights = np.frombuffer(request.expert_weights, weights_dtype).reshape(shape)
        rows = np.zeros((*index.shape, request.hidden_size), dtype)
        like = torch.empty(0, dtype=self.kernels[request.layer][0].dtype)
        for expert in np.unique(index[index >= 0]):
            token, slot = np.nonzero(index == expert)
            given = to_torch(hidden[token], like)
            rows[token, slot] = to_numpy(self.kernels[request.layer][expert](given))
        return combine(rows, weights, dtype).tobytes()


def computed_by(served: Served) -> Action:
    """Answer as a healthy router would."""

    async def act(exchange: Exchange) -> None:
        request = exchange.request
        assert isinstance(request, router_pb2.DispatchRequest)
        response = exchange.echo()
        response.hidden = served.answer(request)
        exchange.answer(response)

    return act
