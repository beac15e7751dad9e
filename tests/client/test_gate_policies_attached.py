"""Which policies reach a model that is attached: its own with contexts; others are refused."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import torch

from moe_client import InvalidRequest, Mismatch, attach, load_trunk
from moe_core.contexts import Context, Contexts
from moe_core.policy import Capacity, Kind, Policy, Weights
from tests.client.gated import GatedRouter, model_with, own_gate
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
