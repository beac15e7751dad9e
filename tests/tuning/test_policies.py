"""The tools with every policy of a gate: chosen as routers do, and each row follows its expert."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from moe_artifacts.artifact import GateArtifact, GateLayer
from moe_artifacts.encoding import Array
from moe_artifacts.metadata import NOISE_WEIGHT, GateMetadata
from moe_client.site import find_sites
from moe_core.policy import Bias, Kind, Policy
from moe_core.rows import GateVariant
from moe_router.application import Batch, apply
from moe_tuning.__main__ import main
from moe_tuning.change import Change, Target, write_change
from moe_tuning.folder import open_folder
from moe_tuning.model import load_model
from moe_tuning.parts import read_parts
from moe_tuning.router import PolicyRouter
from tests.client import test_gate_families
from tests.support.policies import policies
from tests.tuning.stage import bits, run, write_base, write_tokens

IDS = tuple(f"e{number}" for number in range(8))
GROUPED = ("DeepSeek-V2", "DeepSeek-V3")
FAMILIES = ("OLMoE", "Qwen2-MoE", "DeepSeek-V2-Lite", *GROUPED, "GLM-4-MoE")


# -- as the router chooses -----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(policies(IDS), st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1))
def test_a_gate_here_chooses_and_weighs_as_the_router(
    policy: Policy, seed: int, lengths: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    metadata = GateMetadata((0,), 6, IDS, policy, "Float32")
    learned = {
        name.split(".")[2]: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in metadata.shapes.items()
    }
    hidden = rng.standard_normal((sum(lengths), 6), dtype=np.float32)
    variant = GateVariant("v1", "0" * 64, "file:///g", IDS, policy)
    theirs = apply(variant, GateLayer(**learned), hidden, [Batch(n) for n in lengths]).choice

    router = PolicyRouter(policy, {name: torch.from_numpy(a) for name, a in learned.items()})
    router.lengths = tuple(lengths)
    _, weights, index = router(torch.from_numpy(hidden))

    ours = np.zeros((len(hidden), len(IDS)))
    np.add.at(ours, (np.arange(len(hidden))[:, None], index.numpy()), weights.numpy())
    right = np.zeros_like(ours)
    rows = np.arange(len(hidden))[:, None]
    np.add.at(right, (rows, np.maximum(theirs.experts, 0)), theirs.weights)
    np.testing.assert_allclose(ours, right, atol=2e-6 * float(policy.routed_scaling))


# -- families ------------------------------------------------------------------------------------


@torch.no_grad()
def save_family(family: str, folder: Path) -> Path:
    """Split a random model of a family with eight experts, in groups of four if it has any."""
    config = copy.deepcopy(test_gate_families.FAMILIES[family])
    if hasattr(config, "first_k_dense_replace"):
        config.num_hidden_layers, config.first_k_dense_replace = 3, 1
    if family in GROUPED:
        config.n_group, config.topk_group = 2, 1
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config)
    for site in find_sites(model):
        for tensor in site.learned.values():
            tensor.copy_(torch.randn(tensor.shape) * 0.3)
    model.save_pretrained(folder / "checkpoint")
    base = folder / "base"
    assert run_quietly("split", folder / "checkpoint", base, "--mixture", "small") == 0
    return base


def run_quietly(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {name: save_family(name, tmp_path_factory.mktemp("family")) for name in FAMILIES}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for seed, name in enumerate(("text", "old", "held")):
        write_tokens(folder / f"{name}.jsonl", seed)
    return folder


@pytest.fixture
def tool(
    capsys: pytest.CaptureFixture[str], files: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a tool with the usual texts, from a base to `tmp_path / "out"`."""

    def run_tool(base: Path, verb: str, *more: object) -> tuple[int, str, str]:
        texts = ["--text", files / "text.jsonl", "--heldout", files / "held.jsonl"]
        if verb in ("grow", "finetune"):
            texts += ["--familiar", files / "old.jsonl"]
        shutil.rmtree(tmp_path / "out", ignore_errors=True)  # a name there would be taken
        return run(capsys, verb, base, tmp_path / "out", *texts, *more)

    return run_tool


@torch.inference_mode()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_is_the_model_of_the_family(
    family: str, bases: Mapping[str, Path]
) -> None:
    auto: Any = AutoModelForCausalLM
    own = auto.from_pretrained(bases[family].parent / "checkpoint", dtype=torch.float32).eval()
    folder = open_folder(bases[family])
    model = load_model(folder, read_parts(folder))
    tokens = torch.arange(24).reshape(2, 12)
    theirs = own(input_ids=tokens, use_cache=False).logits
    assert torch.allclose(model.logits(tokens), theirs, atol=1e-4)


def learned(gate: GateArtifact, layer: int) -> dict[str, Array]:
    """Every tensor of a layer of a gate, by its name."""
    held = gate.layers[layer]
    names = ("weight", "bias", "selection_bias", "noise_weight")
    return {n: getattr(held, n) for n in names if getattr(held, n) is not None}


def assert_followed(before: GateArtifact, after: GateArtifact, rows: list[int]) -> None:
    """These rows of the old gate are the first of the new one, in all that it has learned."""
    for layer in before.layers:
        old, new = learned(before, layer), learned(after, layer)
        assert old.keys() == new.keys()
        for name, tensor in old.items():
            assert np.array_equal(new[name][: len(rows)], tensor[rows]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_prune_keeps_what_was_learned_of_those_that_stay(
    family: str,
    bases: Mapping[str, Path],
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    code, out, complaints = tool(bases[family], "prune", "--experts", "e1,e6")
    assert (code, complaints) == (0, "")
    before, after = (open_folder(f).gate() for f in (bases[family], tmp_path / "out"))
    assert after.metadata.policy == before.metadata.policy
    assert_followed(before, after, [0, 2, 3, 4, 5, 7])
    assert set(bits(out)) == {"held"}


@pytest.mark.parametrize("family", FAMILIES)
def test_merge_averages_what_was_learned_of_the_merged(
    family: str,
    bases: Mapping[str, Path],
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    merged = "e0,e1,e4" if family in GROUPED else "e0,e1"
    code, _, complaints = tool(bases[family], "merge", "--experts", merged, "--id", "one")
    assert (code, complaints) == (0, "")
    before, after = (open_folder(f).gate() for f in (bases[family], tmp_path / "out"))
    assert after.metadata.experts[0] == "one"
    for layer, held in after.layers.items():
        if held.selection_bias is not None:
            numbers = [int(e[1:]) for e in merged.split(",")]
            own = before.layers[layer].selection_bias
            assert own is not None
            assert own[numbers].min() <= held.selection_bias[0] <= own[numbers].max()


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in GROUPED])
def test_grow_adds_a_row_to_all_that_was_learned(
    family: str,
    bases: Mapping[str, Path],
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    code, _, _ = tool(bases[family], "grow", "--from", "e2", "--steps", "2")
    assert code == 0
    before, after = (open_folder(f).gate() for f in (bases[family], tmp_path / "out"))
    assert after.metadata.experts == (*IDS, "e8")
    assert_followed(before, after, list(range(8)))


@pytest.mark.parametrize("family", FAMILIES)
def test_finetune_moves_the_gate_but_not_what_only_selects(
    family: str,
    bases: Mapping[str, Path],
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    assert tool(bases[family], "finetune", "--parts", "gate,e2", "--steps", "2")[0] == 0
    before, after = (open_folder(f).gate() for f in (bases[family], tmp_path / "out"))
    for layer, held in after.layers.items():
        old = learned(before, layer)
        assert not np.array_equal(held.weight, old["weight"])
        if held.selection_bias is not None:
            assert np.array_equal(held.selection_bias, old["selection_bias"])


@pytest.mark.parametrize("family", GROUPED)
def test_a_dense_expert_is_made_for_it(
    family: str,
    bases: Mapping[str, Path],
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    code, out, complaints = tool(bases[family], "dense", "--steps", "1")
    assert code == 0, complaints
    dense = open_folder(tmp_path / "out").expert("dense")
    assert dense.metadata.layers == (0, 1)
    assert "Dense: this one stands in" in out


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        pytest.param("prune", "--experts e0", "groups of 3, 4 experts would be left", id="one"),
        pytest.param("prune", "--experts e0", "as many (2, 4, 6 in all), or some", id="how many"),
        pytest.param("prune", "--count 3", "it must be a multiple of 2", id="uneven count"),
        pytest.param("prune", "--count 4", "policy.topK is 3; 1 groups have 2", id="below top-k"),
        pytest.param("merge", "--experts e0,e1", "groups of 3, 4 experts", id="merge in one"),
        pytest.param("grow", "--from e0 --steps 0", "2 more at once would be right", id="grow"),
    ],
)
def test_groups_stay_equal_or_it_is_refused(
    verb: str,
    options: str,
    message: str,
    bases: Mapping[str, Path],
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    code, _, complaints = tool(bases["DeepSeek-V3"], verb, *options.split())
    assert (code, complaints.count("\n")) == (1, 1)
    assert message in complaints
    assert not (tmp_path / "out").exists()


def test_a_whole_group_may_go_and_the_least_used_go_by_group(
    bases: Mapping[str, Path], tool: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert tool(bases["DeepSeek-V3"], "prune", "--experts", "e4,e5,e6,e7")[0] == 0
    groups = open_folder(tmp_path / "out").gate().metadata.policy.groups
    assert groups is not None
    assert (groups.count, groups.chosen) == (1, 1)
    assert tool(bases["DeepSeek-V2"], "prune", "--count", "2")[0] == 0
    left = open_folder(tmp_path / "out").gate().metadata.experts
    assert sum(e in IDS[:4] for e in left) == 3


# -- policies that no family here has -------------------------------------------------------------


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("small"))


def with_policy(base: Path, out: Path, **fields: Any) -> Path:
    """Split the small model again with another policy."""
    policy = out.with_suffix(".json")
    policy.write_text(json.dumps(fields))
    options = ("--mixture", "small", "--policy", policy)
    assert run_quietly("split", base.parent / "checkpoint", out, *options) == 0
    return out


def with_learned(base: Path, out: Path, policy: Policy, part: str) -> Path:
    """Give the small model's gate a policy, and random numbers for what it needs beside weights."""
    folder, rng = open_folder(base), np.random.default_rng(3)
    gate = folder.gate()
    metadata = replace(gate.metadata, policy=policy)
    tensors: dict[str, Array] = {}
    for name, shape in metadata.shapes.items():
        _, layer, own = name.split(".")
        held = gate.layers[int(layer)].weight
        tensors[name] = rng.standard_normal(shape).astype(held.dtype) if own == part else held
    write_change(folder, Change((metadata, tensors)), Target(out, "file:///x"))
    return out


CONTEXTS = {
    "bound": "2",
    "known": [
        {"name": "legal", "biases": [{"id": "e0", "bias": "1"}, {"id": "e1", "bias": "-1"}]},
        {"name": "code", "biases": [{"id": "e3", "bias": "1.5"}]},
    ],
}
POLICIES: Mapping[str, Callable[[Path, Path], Path]] = {
    "contexts": lambda base, out: with_policy(base, out, contexts=CONTEXTS),
    "capacity": lambda base, out: with_policy(base, out, capacityFactor="0.75"),
    "next best": lambda b, o: with_policy(b, o, capacityFactor="0.75", overflow="NextBest"),
    "Switch": lambda b, o: with_policy(b, o, type="Switch", topK=1),
    "ExpertChoice": lambda base, out: with_policy(base, out, type="ExpertChoice"),
    "noise": lambda base, out: with_learned(
        base, out, Policy(2, Kind.NOISY_TOP_K, noise_seed=5), NOISE_WEIGHT
    ),
    "bias": lambda base, out: with_learned(base, out, Policy(2, bias=Bias.LOGITS), "bias"),
}


@pytest.fixture(params=POLICIES)
def other(request: pytest.FixtureRequest, mixtral: Path, tmp_path: Path) -> tuple[str, Path]:
    name: str = request.param
    return name, POLICIES[name](mixtral, tmp_path / "base")


def test_every_tool_takes_it(
    other: tuple[str, Path],
    mixtral: Path,
    tool: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    name, base = other
    before = open_folder(base, (mixtral,)).gate()
    where = ("--artifacts", mixtral)
    for verb, *options in (
        ("finetune", "--parts", "gate,e0", "--steps", "1"),
        ("merge", "--experts", "e0,e2", "--steps", "1"),
        ("dense", "--intermediate", "8", "--steps", "1"),
        ("prune", "--experts", "e1"),
    ):
        code, out, complaints = tool(base, verb, *options, *where)
        assert code == 0, complaints
        assert ("one expert out" in out) == (verb == "dense")
        assert all(0 < value < 20 for pair in bits(out).values() for value in pair)
    after = open_folder(tmp_path / "out", (base, mixtral)).gate()
    assert_followed(before, after, [0, 2, 3])
    code, _, complaints = tool(base, "grow", "--from", "e1", "--steps", "1", *where)
    if name == "ExpertChoice":
        assert "the gate's policy is ExpertChoice: each expert takes as many rows" in complaints
    else:
        assert code == 0, complaints
        grown = open_folder(tmp_path / "out", (base, mixtral)).gate()
        assert_followed(before, grown, [0, 1, 2, 3])
        assert grown.metadata.policy == before.metadata.policy


def test_contexts_follow_their_experts(
    mixtral: Path, tool: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    base = with_policy(mixtral, tmp_path / "base", contexts=CONTEXTS)
    assert tool(base, "prune", "--experts", "e3")[0] == 0
    contexts = open_folder(tmp_path / "out").gate().metadata.policy.contexts
    assert contexts is not None
    assert contexts.names == ("legal",)
    assert tool(base, "merge", "--experts", "e0,e1", "--id", "one")[0] == 0
    contexts = open_folder(tmp_path / "out").gate().metadata.policy.contexts
    assert contexts is not None
    ((found, bias),) = contexts.known[0].biases
    assert found == "one"
    assert -1 < bias < 1
