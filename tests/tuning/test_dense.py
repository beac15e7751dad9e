"""A dense expert: what it stands in for, what it is worth, what is written and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from moe_artifacts.artifact import read_expert
from moe_artifacts.golden import Golden
from moe_artifacts.golden_text import Rules
from moe_core.policy import Policy
from moe_core.rows import Role
from moe_core.table import Rung
from moe_tuning.distill import distill, watch
from moe_tuning.folder import open_folder
from moe_tuning.measure import bits_per_token
from moe_tuning.model import Model, load_model
from moe_tuning.outage import outages, without
from moe_tuning.parts import Parts, read_parts
from moe_tuning.texts import read_texts
from moe_tuning.training import Recipe
from tests.artifacts.models import index_of
from tests.tuning.stage import run, write_base, write_tokens

TOKENS = torch.arange(24).reshape(2, 12)
NO_STEPS = Recipe(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def parts(base: Path) -> Parts:
    return read_parts(open_folder(base))


@pytest.fixture
def model(base: Path, parts: Parts) -> Model:
    return load_model(open_folder(base), parts)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    path = write_tokens(tmp_path_factory.mktemp("text") / "text.jsonl", 0, sequences=40)
    return read_texts([path], Rules(False, 12, None), "--text")


def silent(line: str) -> None:
    pass


# -- the rungs -----------------------------------------------------------------------------------


@torch.inference_mode()
def test_an_experts_own_copy_stands_in_for_it_without_a_loss(model: Model, parts: Parts) -> None:
    healthy = model.logits(TOKENS)
    with without(model, 2, Rung.DENSE, parts.experts["e2"]):
        assert torch.allclose(model.logits(TOKENS), healthy, atol=1e-4)
    with without(model, 2, Rung.DENSE, parts.experts["e1"]):
        assert not torch.allclose(model.logits(TOKENS), healthy, atol=1e-2)
    assert torch.equal(model.logits(TOKENS), healthy)


@torch.inference_mode()
def test_nobody_in_its_place_is_an_expert_of_zeros(model: Model, parts: Parts) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in parts.experts["e1"].items()}
    with without(model, 1, Rung.RESIDUAL, parts.experts["e0"]):
        residual = model.logits(TOKENS)
    with without(model, 1, Rung.DENSE, zeros):
        assert torch.allclose(model.logits(TOKENS), residual, atol=1e-5)


@torch.inference_mode()
def test_a_tokens_other_experts_share_the_weight(model: Model, parts: Parts) -> None:
    """With top-1 nobody is left: then it is the residual alone; with top-2 the other has it all."""
    seen: list[torch.Tensor] = []
    experts = model.blocks()[0].experts
    with without(model, 0, Rung.RENORMALISE, parts.experts["e0"]):
        hook = experts.register_forward_pre_hook(lambda m, inputs: seen.extend(inputs))
        model.logits(TOKENS)
        hook.remove()
    _, index, weights = seen
    out = (index == 0).any(1)
    assert bool(out.any())
    assert torch.allclose(weights[out].sum(1), torch.ones(int(out.sum())))
    assert bool((weights[index == 0] == 0).all())
    alone = parts.with_rows(parts.gate, parts.experts, Policy(1))
    model.install(alone)
    with without(model, 0, Rung.RENORMALISE, parts.experts["e0"]):
        one = model.logits(TOKENS)
    with without(model, 0, Rung.RESIDUAL, parts.experts["e0"]):
        assert torch.equal(model.logits(TOKENS), one)


# -- what is learned -----------------------------------------------------------------------------


def test_the_target_is_the_mean_of_the_chosen_weighted_by_squares(
    model: Model, parts: Parts, text: Golden
) -> None:
    given: list[tuple[torch.Tensor, ...]] = []
    hook = model.blocks()[0].experts.register_forward_pre_hook(lambda m, i: given.append(i))
    seen = watch(model, text)[0]
    hook.remove()
    hidden, index, weights = (torch.cat(some) for some in zip(*given, strict=True))
    row, total, counts = 7, torch.zeros(hidden.shape[1]), 0.0
    for expert, weight in zip(index[row].tolist(), weights[row].tolist(), strict=True):
        held = [parts.experts[f"e{expert}"][f"layers.0.{n}_proj"] for n in ("gate", "up", "down")]
        x = hidden[row]
        y = held[2] @ (torch.nn.functional.silu(held[0] @ x) * (held[1] @ x))
        total, counts = total + weight**2 * y, counts + weight**2
    assert torch.allclose(seen.target[row], total / counts, atol=1e-5)
    assert seen.counts[row].item() == pytest.approx(counts, rel=1e-5)


def test_where_all_experts_are_one_it_is_that_one(model: Model, parts: Parts, text: Golden) -> None:
    """It has a quarter of all neurons to choose from, and all that is to be learned is in them."""
    same = dict.fromkeys(parts.ids, parts.experts["e3"])
    model.install(parts.with_rows(parts.gate, same))
    wide = 4 * parts.expert_metadata.intermediate_size
    dense = distill(model, text, wide, NO_STEPS, silent)
    healthy = sum(bits_per_token(model, text).values())
    cost = outages(model, parts.ids, dense, text, silent)
    assert cost[Rung.DENSE].mean == pytest.approx(healthy, abs=0.005)
    assert abs(cost[Rung.RESIDUAL].mean - healthy) > 0.01


def test_training_brings_it_nearer_to_the_healthy_model(
    model: Model, parts: Parts, text: Golden
) -> None:
    def away(steps: int) -> float:
        dense = distill(model, text, 24, Recipe(steps, rate=3e-3, batch=8), silent)
        with torch.inference_mode():
            tokens = torch.stack([torch.from_numpy(s.tokens).long() for s in text.sequences])
            healthy, total = model.logits(tokens).log_softmax(-1), 0.0
            for lost in range(4):
                with without(model, lost, Rung.DENSE, dense):
                    other = model.logits(tokens).log_softmax(-1)
                total += float((healthy.exp() * (healthy - other)).sum())
        return total

    assert away(30) < 0.9 * away(0)


# -- the tool ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    text, held = (write_tokens(tmp_path / f"{n}.jsonl", s) for s, n in enumerate(("text", "held")))
    return ["--text", text, "--heldout", held]


def test_it_writes_an_expert_beside_the_others_and_says_what_it_is_worth(
    capsys: pytest.CaptureFixture[str], base: Path, files: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--intermediate", "10", "--steps", "2")
    code, printed, complaints = run(capsys, "dense", base, out, *files, *options)
    assert code == 0, complaints
    assert "moe dense: step 2 of 2" in complaints
    names = [entry.name for entry in index_of(out).entries]
    assert names == ["e0", "e1", "e2", "e3", "dense", "gate"]
    entry = index_of(out).entry("dense")
    assert entry is not None
    assert (entry.role, entry.version, entry.layers) == (Role.DENSE, "v1", (0, 1))
    artifact = read_expert(out / str(entry.file), entry.sha256)
    assert artifact.metadata.intermediate_size == 10
    assert np.isfinite(artifact.layers[1].down_proj.astype(float)).all()
    (path,) = (out / "manifests").iterdir()
    spec = yaml.safe_load(path.read_text())["spec"]
    assert (spec["role"], spec["expertId"], spec["layers"]) == ("Dense", "dense", [0, 1])
    lines = [line for line in printed.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == ["none:", "Dense:", "Renormalise:", "Residual:"]
    assert all(re.search(r"\d\.\d{3} \([+-]\d\.\d{3}\) +\d\.\d{3} without e[0-3]$", line)
               for line in lines[1:])  # fmt: skip


def test_again_it_is_the_next_version_of_the_one_that_is_there(
    capsys: pytest.CaptureFixture[str], base: Path, files: list[object], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--steps", "0", "--intermediate")
    assert run(capsys, "dense", base, first, *files, *options, "8", "--id", "any")[0] == 0
    where = ("--artifacts", base)
    assert run(capsys, "dense", first, second, *files, *options, "6", *where)[0] == 0
    entry = index_of(second).entry("any")
    assert entry is not None
    assert (entry.version, entry.role) == ("v2", Role.DENSE)
    code, _, complaints = run(
        capsys, "dense", first, tmp_path / "x", *files, "--id", "other", *where
    )
    assert code == 1
    assert "a layer has one dense expert, and any is there" in complaints


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("--id e1", "has a part of that name already", id="an expert's id"),
        pytest.param("--id gate", "has a part of that name already", id="the gate's"),
        pytest.param("--intermediate 97", "it must be at most 96, as wide as all", id="too wide"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    files: list[object],
    tmp_path: Path,
    options: str,
    message: str,
) -> None:
    out = tmp_path / "out"
    code, _, complaints = run(capsys, "dense", base, out, *files, *options.split())
    assert code == 1
    assert message in complaints
    assert not out.exists()
