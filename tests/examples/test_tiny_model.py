"""The stored example model: it loads as published Mixtral checkpoints do, and it has learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import MixtralForCausalLM

from examples.tiny import outage
from examples.tiny.domains import DOMAINS, EXPERT_OF, EXPERTS, HERE, partner
from examples.tiny.model import (
    CHECKPOINT,
    CONTEXT,
    bits_per_byte,
    create,
    expert_tensors,
    heldout,
    load,
    load_version,
    replace_expert,
)
from examples.tiny.versions import make_broken

STORED_BYTES_AT_MOST = 3_000_000
TUNED = 3
OWN = DOMAINS[TUNED]


@pytest.fixture(scope="module")
def model() -> MixtralForCausalLM:
    torch.set_num_threads(1)
    loaded = load(torch.float32)
    loaded.set_experts_implementation("eager")
    return loaded


def entropy(data: bytes) -> float:
    """Return the bits per byte of the best code that knows only how often each byte occurs."""
    counts = Counter(data)
    return -sum(n / len(data) * math.log2(n / len(data)) for n in counts.values())


def bits_without(model: MixtralForCausalLM, rung: str, text: bytes) -> float:
    with outage.without(model, TUNED, rung, partner(TUNED)):
        return bits_per_byte(model, text)


def bits_with(model: MixtralForCausalLM, version: str, text: bytes) -> float:
    before = expert_tensors(model, TUNED)
    replace_expert(model, TUNED, load_version(version))
    try:
        return bits_per_byte(model, text)
    finally:
        replace_expert(model, TUNED, before)


def test_what_is_stored_fits_the_repository() -> None:
    stored = sum(path.stat().st_size for path in HERE.rglob("*.safetensors"))
    assert 0 < stored <= STORED_BYTES_AT_MOST


def test_the_checkpoint_has_the_published_names_and_dtype() -> None:
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as file:
        names = set(file.keys())
        dtypes = {file.get_slice(name).get_dtype() for name in names}
    wanted = {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w{n}.weight"
        for layer in range(4)
        for expert in range(EXPERTS)
        for n in (1, 2, 3)
    } | {f"model.layers.{layer}.block_sparse_moe.gate.weight" for layer in range(4)}
    assert wanted <= names
    assert dtypes == {"BF16"}


def test_transformers_loads_every_stored_tensor_bit_for_bit() -> None:
    stored = load_file(CHECKPOINT / "model.safetensors")
    loaded = load(torch.bfloat16)
    tensors = {k: v for k, v in loaded.state_dict().items() if ".mlp.experts." not in k}
    tensors = {k.replace(".mlp.", ".block_sparse_moe."): v for k, v in tensors.items()}
    for expert in range(EXPERTS):
        tensors |= expert_tensors(loaded, expert)
    assert set(tensors) == set(stored)
    assert [name for name, tensor in stored.items() if not torch.equal(tensor, tensors[name])] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_domain_is_predicted_far_better_than_by_byte_frequency(
    model: MixtralForCausalLM, domain: str
) -> None:
    text = heldout(domain)[:4096]
    assert bits_per_byte(model, text) < 0.8 * entropy(heldout(domain))


def test_the_better_version_is_better_and_the_worse_one_worse(model: MixtralForCausalLM) -> None:
    text = heldout(OWN)[:8192]
    now = bits_per_byte(model, text)
    assert bits_with(model, f"expert-{TUNED}-better", text) < now - 0.02
    assert bits_with(model, f"expert-{TUNED}-worse", text) > now + 0.1


def test_each_rung_of_the_ladder_costs_more_than_being_healthy(model: MixtralForCausalLM) -> None:
    text = heldout(OWN)[:8192]
    healthy = bits_per_byte(model, text)
    dense = bits_with(model, "dense", text)
    assert healthy < dense < bits_without(model, "renormalise", text)
    assert healthy < bits_without(model, "backup", text) < bits_without(model, "residual", text)


def test_a_version_touches_only_its_own_expert(model: MixtralForCausalLM) -> None:
    others = [expert_tensors(model, e) for e in range(EXPERTS) if e != TUNED]
    before = expert_tensors(model, TUNED)
    replace_expert(model, TUNED, load_version(f"expert-{TUNED}-better"))
    after = [expert_tensors(model, e) for e in range(EXPERTS) if e != TUNED]
    replace_expert(model, TUNED, before)
    for one, two in zip(others, after, strict=True):
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    restored = expert_tensors(model, TUNED)
    assert all(torch.equal(tensor, restored[name]) for name, tensor in before.items())


def test_the_broken_version_differs_in_one_tensor_that_is_not_finite() -> None:
    broken, whole = make_broken(TUNED), expert_tensors(load(torch.float32), TUNED)
    changed = [n for n, tensor in broken.items() if not torch.equal(tensor, whole[n])]
    assert changed == [f"model.layers.1.block_sparse_moe.experts.{TUNED}.w2.weight"]
    assert bool(broken[changed[0]].isnan().all())


@pytest.mark.parametrize("length", [2, CONTEXT, CONTEXT + 1, 2 * CONTEXT + 57])
def test_bits_per_byte_counts_every_byte_but_the_first(length: int) -> None:
    untrained = create(seed=1)
    with torch.no_grad():
        untrained.lm_head.weight.zero_()  # every byte equally likely: 8 bits each
    assert bits_per_byte(untrained, heldout("code")[:length]) == pytest.approx(8.0)


def test_bits_per_byte_does_not_depend_on_the_batch(model: MixtralForCausalLM) -> None:
    text = heldout("docs")[: 4 * CONTEXT + 9]
    assert bits_per_byte(model, text, 1) == pytest.approx(bits_per_byte(model, text, 3), abs=1e-5)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        pytest.param(lambda m: bits_per_byte(m, b"x"), "data has 1 bytes", id="one byte"),
        pytest.param(lambda m: heldout("poetry"), "domain is 'poetry'", id="unknown domain"),
        pytest.param(lambda m: replace_expert(m, 0, {}), "0 tensors given", id="no tensors"),
        pytest.param(
            lambda m: outage.without(m, 0, "prayer").__enter__(), "rung is 'prayer'", id="rung"
        ),
    ],
)
def test_bad_input_is_named(
    model: MixtralForCausalLM, act: Callable[[MixtralForCausalLM], object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        act(model)


def test_domains_number_their_experts_in_order() -> None:
    assert list(EXPERT_OF.values()) == list(range(EXPERTS))
    assert all(partner(partner(e)) == e != partner(e) for e in range(EXPERTS))
