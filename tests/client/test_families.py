"""Other families whose experts transformers lets others compute: the hook is the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    Glm4MoeConfig,
    OlmoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from moe_client import attach, use_local
from moe_client.own_policy import OwnPolicy
from moe_client.site import find_sites
from moeops.v1 import router_pb2, types_pb2
from tests.client.test_attachment import logits, some_tokens
from tests.client.tiny import EXPERTS, VOCABULARY, Served, computed_by, policy_text
from tests.fakes.router import FakeRouter, in_a_thread

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": len(EXPERTS),
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
LATENT: dict[str, Any] = {
    **{name: value for name, value in SIZES.items() if name != "num_experts"},
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "intermediate_size": 40,
    "moe_intermediate_size": 48,
    "n_routed_experts": len(EXPERTS),
    "n_shared_experts": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "first_k_dense_replace": 1,
}
"""The first of three layers has no experts; the others have shared ones beside them."""
GROUPS: dict[str, Any] = {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 2.5}
FAMILIES: dict[str, Any] = {
    "OLMoE": OlmoeConfig(**SIZES, intermediate_size=48),
    "Qwen2-MoE": Qwen2MoeConfig(
        **SIZES, moe_intermediate_size=48, shared_expert_intermediate_size=40
    ),
    "Qwen3-MoE": Qwen3MoeConfig(
        **{**SIZES, "moe_intermediate_size": 48, "head_dim": 8, "mlp_only_layers": [0]}
    ),
    "DeepSeek-V2-Lite": DeepseekV2Config(**LATENT, topk_method="greedy"),
    "DeepSeek-V2": DeepseekV2Config(**LATENT, **GROUPS, topk_method="group_limited_greedy"),
    "DeepSeek-V3": DeepseekV3Config(**LATENT, **GROUPS),
    "GLM-4-MoE": Glm4MoeConfig(**LATENT, n_group=1, topk_group=1),
}


@torch.no_grad()
def create(family: str) -> Any:
    auto: Any = AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto.from_config(copy.deepcopy(FAMILIES[family])).eval()
    for site in find_sites(model):
        for tensor in site.learned.values():  # what transformers leaves at zero chooses nothing
            tensor.copy_(torch.randn(tensor.shape) * 0.3)
    return model


def describe(model: Any) -> router_pb2.DescribeMixtureResponse:
    layers = [site.layer for site in find_sites(model)]
    policy = policy_text(OwnPolicy.of(model).policy)
    gate = router_pb2.GateDescription(
        name="gate", layers=layers, experts=EXPERTS, top_k=2, policy=policy
    )
    return router_pb2.DescribeMixtureResponse(
        mixture="tiny",
        hidden_size=32,
        layers=len(layers),
        dtype=types_pb2.DTYPE_FLOAT32,
        gates=[gate],
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_have_the_bits_of_the_model_in_one_process(family: str) -> None:
    model = create(family)
    theirs = logits(model, some_tokens())
    router = FakeRouter(describe(model), otherwise=computed_by(Served.of(model)))
    use_local(model)
    reference = logits(model, some_tokens())
    assert torch.allclose(reference, theirs, atol=1e-5)
    with in_a_thread(router), attach(model, router.address, digests=False):
        assert torch.equal(logits(model, some_tokens()), reference)
    layers = {r.layer for r in router.requests}
    assert layers == {site.layer for site in find_sites(model)}


def test_a_dense_layer_is_no_site_and_does_not_count() -> None:
    sites = find_sites(create("Qwen3-MoE"))
    assert [(site.layer, site.path) for site in sites] == [(0, "model.layers.1.mlp.experts")]
