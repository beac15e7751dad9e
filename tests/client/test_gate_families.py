"""Policies equal the router modules that transformers has for the families that they are from.

In float32: the same experts for every row, and weights within 1e-6 (times the routed scaling).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    Glm4MoeConfig,
    GptOssConfig,
    MixtralConfig,
    OlmoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
    SwitchTransformersConfig,
)
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersTop1Router,
)

from moe_artifacts.artifact import GateLayer
from moe_artifacts.families import policy_of
from moe_artifacts.names import GATE_TENSORS
from moe_client.own_policy import OwnPolicy
from moe_client.router_module import copy_router
from moe_client.site import find_sites
from moe_client.tensors import to_numpy
from moe_core.contexts import Context, Contexts
from moe_core.document import Reader
from moe_core.policy import Kind, Policy
from moe_core.rows import GateVariant
from moe_router.application import Applied, Batch, apply

EXPERTS, HIDDEN, ROWS = 8, 32, 400
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts_per_tok": 3,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
HERE: dict[str, Any] = {**SIZES, "num_local_experts": EXPERTS}
THERE: dict[str, Any] = {**SIZES, "num_experts": EXPERTS, "moe_intermediate_size": 24}
HEADS: dict[str, Any] = {**THERE, "head_dim": 8}
LATENT: dict[str, Any] = {
    **SIZES,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "moe_intermediate_size": 24,
    "n_routed_experts": EXPERTS,
    "first_k_dense_replace": 0,
    "routed_scaling_factor": 2.5,
}
GROUPS: dict[str, Any] = {"n_group": 4, "topk_group": 2}
FAMILIES: dict[str, Any] = {
    "Mixtral": MixtralConfig(**HERE),
    "GPT-OSS": GptOssConfig(**HERE, head_dim=8),
    "OLMoE": OlmoeConfig(**THERE),
    "OLMoE, scaled": OlmoeConfig(**THERE, norm_topk_prob=True),
    "Qwen2-MoE": Qwen2MoeConfig(**THERE, shared_expert_intermediate_size=24),
    "Qwen3-MoE": Qwen3MoeConfig(**HEADS, norm_topk_prob=True),
    "Qwen3-MoE, as scored": Qwen3MoeConfig(**HEADS),
    "DeepSeek-V2-Lite": DeepseekV2Config(**LATENT, topk_method="greedy"),
    "DeepSeek-V2": DeepseekV2Config(**LATENT, **GROUPS, topk_method="group_limited_greedy"),
    "DeepSeek-V3": DeepseekV3Config(**LATENT, **GROUPS),
    "DeepSeek-V3, as scored": DeepseekV3Config(**LATENT, **GROUPS, norm_topk_prob=False),
    "GLM-4-MoE": Glm4MoeConfig(**{**LATENT, "n_group": 1, "topk_group": 1}),
}


@torch.no_grad()
def create(family: str, seed: int = 0) -> Any:
    """Return a model whose gates have learned something random."""
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(copy.deepcopy(FAMILIES[family])).eval()
    for site in find_sites(model):
        for tensor in site.learned.values():
            tensor.copy_(torch.randn(tensor.shape) * 0.3)
    return model


def some_rows(seed: int = 0) -> torch.Tensor:
    return torch.randn(ROWS, HIDDEN, generator=torch.Generator().manual_seed(seed))


def applied(
    policy: Policy, hidden: torch.Tensor, tensors: Mapping[str, torch.Tensor], context: str = ""
) -> Applied:
    names = tuple(f"e{n}" for n in range(EXPERTS))
    variant = GateVariant("v1", "0" * 64, "file:///g", names, policy)
    layer = GateLayer(**{name: to_numpy(tensor) for name, tensor in tensors.items()})
    return apply(variant, layer, to_numpy(hidden), [Batch(len(hidden), context)])


def dense(experts: Any, weights: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (T, E): the weight of each expert, whatever the order of slots; -1 where none."""
    rows = np.full((len(experts), EXPERTS), -1.0)
    np.put_along_axis(rows, np.asarray(experts, np.intp), np.asarray(weights, np.float64), axis=1)
    return rows


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_chooses_as_its_family_does(family: str) -> None:
    model = create(family)
    (site,) = find_sites(model)
    hidden, router = some_rows(), site.router
    assert router is not None
    _, weights, experts = router(hidden)

    policy = policy_of(Reader(model.config.to_dict(), "config"))
    assert policy is not None
    found = applied(policy, hidden, site.learned).choice

    theirs, ours = dense(experts, weights), dense(found.experts, found.weights)
    assert ((theirs >= 0) == (ours >= 0)).all()
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * float(policy.routed_scaling))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_copied_router_module_is_one_with_the_other_tensors(family: str) -> None:
    (site,) = find_sites(create(family))
    (other,) = find_sites(create(family, seed=1))
    assert site.router is not None
    before = {name: tensor.clone() for name, tensor in site.learned.items()}
    named = {GATE_TENSORS[name]: tensor for name, tensor in other.learned.items()}
    twin = copy_router(site.router, 0, named, 2)

    other_router: Any = other.router
    other_router.top_k = 2
    for theirs, ours in zip(other_router(some_rows()), twin(some_rows()), strict=True):
        assert torch.equal(theirs, ours)
    assert all(torch.equal(tensor, before[name]) for name, tensor in site.learned.items())


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_context_changes_what_a_copy_chooses_as_it_does_in_the_router(family: str) -> None:
    model = create(family)
    (site,) = find_sites(model)
    assert site.router is not None
    policy = OwnPolicy.of(model).policy
    about = Context("legal", (("e1", Decimal("1.5")), ("e6", Decimal("-0.75"))))
    policy = replace(policy, contexts=Contexts(Decimal(1), (about,)))
    named = {GATE_TENSORS[name]: tensor for name, tensor in site.learned.items()}
    bias = torch.tensor([0, 1.0, 0, 0, 0, 0, -0.75, 0])
    _, weights, experts = copy_router(site.router, 0, named, 3, bias)(some_rows())

    found = applied(policy, some_rows(), site.learned, "legal").choice

    theirs, ours = dense(experts, weights), dense(found.experts, found.weights)
    assert ((theirs >= 0) == (ours >= 0)).all()
    np.testing.assert_allclose(ours, theirs, atol=2e-6 * float(policy.routed_scaling))
    plain = applied(policy, some_rows(), site.learned).choice
    assert (plain.experts != found.experts).any()


@torch.no_grad()
@pytest.mark.parametrize("biased", [False, True])
def test_switch_chooses_as_its_block_does(biased: bool) -> None:
    torch.manual_seed(0)
    config = SwitchTransformersConfig(d_model=HIDDEN, num_experts=EXPERTS, router_bias=biased)
    config.expert_capacity = ROWS
    router = SwitchTransformersTop1Router(config).eval()
    hidden, classifier = some_rows(), router.classifier
    chosen, weights, _ = router(hidden[None])

    tensors = {"weight": classifier.weight} | ({"bias": classifier.bias} if biased else {})
    found = applied(Policy(1, Kind.SWITCH), hidden, tensors).choice

    assert found.experts[:, 0].tolist() == chosen[0].argmax(dim=-1).tolist()
    np.testing.assert_allclose(found.weights, to_numpy(weights[0]), atol=1e-6)
