"""Which policies reach a model that is attached: its own with contexts; others are refused."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_client import InvalidRequest, Mismatch, attach, load_trunk
from moe_core.contexts import Context, Contexts
from moe_core.policy import Capacity, Kind, Policy, Weights
from tests.client.gated import GatedRouter, another_gate, model_with, own_gate
from tests.client.test_attachment import logits, some_tokens
from tests.client.tiny import save_tiny
from tests.fakes.router import in_a_thread

LEGAL = Contexts(Decimal(1), (Context("legal", (("e0", Decimal(1)),)),))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.float32)


def test_a_gate_with_contexts_is_the_models_own_where_none_is_named(checkpoint: Path) -> None:
    own = replace(own_gate(checkpoint), policy=Policy(2, contexts=LEGAL))
    router, model = GatedRouter.of(checkpoint, own), load_trunk(checkpoint)
    router.gates = {}  # it has nothing to give out
    with in_a_thread(router), attach(model, router.address):
        seen = logits(model, some_tokens())
    assert torch.equal(seen, logits(model_with(checkpoint, own), some_tokens()))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(2, Kind.EXPERT_CHOICE), "'type': 'ExpertChoice'"),
        (Policy(2, weights=Weights.AS_SCORED), "'weights': 'AsScored'"),
        (Policy(2, capacity=Capacity()), "'capacityFactor': '1.2'"),
    ],
)
def test_a_policy_that_the_models_modules_do_not_apply_is_refused_by_name(
    checkpoint: Path, policy: Policy, words: str
) -> None:
    served = replace(own_gate(checkpoint), policy=policy)
    router, model = GatedRouter.of(checkpoint, served), load_trunk(checkpoint)
    with in_a_thread(router):
        with pytest.raises(InvalidRequest, match="version v1 of gate gate has the policy") as error:
            attach(model, router.address)
        assert words in str(error.value)
        with pytest.raises(Mismatch, match="the model's policy in layer 0 is"):
            attach(model, router.address, digests=False)


def biased(model: Any, bias: torch.Tensor) -> Any:
    """Have the routers of a model in one process add a bias to their logits."""
    for layer in model.model.layers:
        router = layer.mlp.gate

        def forward(hidden: torch.Tensor, router: Any = router) -> Any:
            scores = torch.nn.functional.linear(hidden, router.weight) + bias
            weights, index = torch.topk(scores.float().softmax(dim=-1), router.top_k, dim=-1)
            return scores, weights / weights.sum(dim=-1, keepdim=True), index

        router.forward = forward
    return model


def test_sequences_of_a_context_are_chosen_for_with_its_biases_and_others_as_ever(
    checkpoint: Path,
) -> None:
    contexts = Contexts(Decimal(2), (Context("legal", (("e0", Decimal(9)),)),))
    own = replace(own_gate(checkpoint), policy=Policy(2, contexts=contexts))
    router, model = GatedRouter.of(checkpoint, own), load_trunk(checkpoint)
    with in_a_thread(router), attach(model, router.address) as attachment:
        with attachment.contexts(["", "legal"]):
            seen = logits(model, some_tokens(2))
        after = logits(model, some_tokens(2))

    plain = logits(model_with(checkpoint, own), some_tokens(2))
    legal = biased(model_with(checkpoint, own), torch.tensor([2.0, 0.0, 0.0, 0.0]))
    assert torch.equal(seen[0], plain[0])
    assert torch.equal(after, plain)
    assert not torch.allclose(seen[1], plain[1], atol=1e-3)
    torch.testing.assert_close(seen[1], logits(legal, some_tokens(2))[1], atol=1e-4, rtol=1e-4)


def test_a_context_follows_a_session_onto_another_version(checkpoint: Path) -> None:
    contexts = Contexts(Decimal(2), (Context("legal", (("e0", Decimal(2)),)),))
    other = another_gate(checkpoint, "v2")
    other = replace(other, policy=Policy(2, contexts=contexts))
    router, model = GatedRouter.of(checkpoint, own_gate(checkpoint), other), load_trunk(checkpoint)
    router.pins = {"s": other.sha256}
    with (
        in_a_thread(router),
        attach(model, router.address, session="s") as attachment,
        attachment.contexts("legal"),
    ):
        seen = logits(model, some_tokens(1))
        with attachment.sessions("t"), pytest.raises(InvalidRequest, match=r"v1 .* knows: none"):
            logits(model, some_tokens(1))

    legal = biased(model_with(checkpoint, other), torch.tensor([2.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(seen, logits(legal, some_tokens(1)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("medical", "context is 'medical'; version v1 of gate gate knows: legal"),
        (["legal", "legal"], "2 contexts are named for a batch of 1"),
    ],
)
def test_a_context_that_cannot_be_is_refused(checkpoint: Path, said: Any, words: str) -> None:
    own = replace(own_gate(checkpoint), policy=Policy(2, contexts=LEGAL))
    router, model = GatedRouter.of(checkpoint, own), load_trunk(checkpoint)
    with in_a_thread(router), attach(model, router.address) as attachment:
        with attachment.contexts(said), pytest.raises(InvalidRequest, match=words):
            logits(model, some_tokens(1))
        logits(model, some_tokens(1))
