"""Splitting: the parts are the model, their names follow their bytes, and errors come first."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM

from moe_artifacts.artifact import read_expert, read_metadata, sha256_of_file
from moe_artifacts.checkpoint import open_checkpoint
from moe_artifacts.errors import BadCheckpoint, Refused
from moe_artifacts.index import Index
from moe_artifacts.metadata import GateMetadata
from moe_artifacts.plan import Replacement, Request, make_plan
from moe_artifacts.split import Fate, Summary, split
from moe_artifacts.trunk import trunk_sha256
from tests.artifacts.models import (
    EXPERTS,
    assemble,
    index_of,
    load_model,
    logits,
    make_model,
    save_expert,
    slices_of,
    to_torch,
    trunk_of,
)

STYLES: Mapping[str, dict[str, Any]] = {
    "published names": {},
    "names of transformers": {"save_original_format": False},
    "in shards": {"max_shard_size": "5KB"},
    "names of transformers in shards": {"save_original_format": False, "max_shard_size": "9KB"},
}


@pytest.fixture(scope="module")
def model() -> MixtralForCausalLM:
    return make_model()


@pytest.fixture(scope="module")
def checkpoint(model: MixtralForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(path)
    return path


@pytest.fixture
def request_(checkpoint: Path, tmp_path: Path) -> Request:
    return Request(checkpoint, tmp_path / "out", "tiny")


def run(request: Request) -> Summary:
    plan = make_plan(request)
    read = 0

    def on_bytes(count: int) -> None:
        nonlocal read
        read += count

    summary = split(plan, on_bytes)
    assert 0.9 * plan.bytes_to_read <= read <= 1.5 * plan.bytes_to_read
    return summary


def fates(summary: Summary) -> dict[str, Fate]:
    return dict(summary.fates)


def digests(index: Index) -> dict[str, str]:
    return {entry.name: entry.sha256 for entry in index.entries}


def versions(index: Index) -> dict[str, str]:
    return {entry.name: entry.version for entry in index.entries}


def manifest(out: Path, name: str) -> Any:
    return yaml.safe_load((out / "manifests" / f"{name}.yaml").read_text())


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_parts_together_are_the_model_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    make_model(dtype).save_pretrained(tmp_path / "in")
    run(Request(tmp_path / "in", tmp_path / "out", "tiny"))
    model = load_model(tmp_path / "in", dtype)
    expected = logits(model)
    assert expected.dtype == dtype
    assert torch.equal(logits(assemble(tmp_path / "out", model)), expected)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_how_a_checkpoint_is_stored_makes_no_difference(
    model: MixtralForCausalLM, request_: Request, tmp_path: Path, style: dict[str, Any]
) -> None:
    model.save_pretrained(tmp_path / "in", **style)
    run(request_)
    run(replace(request_, checkpoint=tmp_path / "in", out=tmp_path / "other"))
    assert tree(request_.out) == tree(tmp_path / "other")


def test_a_second_run_writes_no_artifact(request_: Request) -> None:
    first = run(request_)
    before = tree(request_.out)
    times = {p: p.stat().st_mtime_ns for p in request_.out.glob("*.safetensors")}
    second = run(request_)
    assert set(fates(first).values()) == {Fate.WRITTEN}
    assert set(fates(second).values()) == {Fate.KEPT}
    assert tree(request_.out) == before
    assert {p: p.stat().st_mtime_ns for p in request_.out.glob("*.safetensors")} == times


def test_a_damaged_artifact_is_written_again(request_: Request) -> None:
    entry = run(request_).index.entries[1]
    path = request_.out / str(entry.file)
    path.write_bytes(b"half of it")
    assert fates(run(request_))["e1"] is Fate.WRITTEN
    assert sha256_of_file(path) == entry.sha256


def test_the_manifests_say_what_the_cluster_needs(
    model: MixtralForCausalLM, request_: Request
) -> None:
    index = run(replace(request_, replicas=2, uri_prefix="https://host/a")).index
    assert manifest(request_.out, "mixture") == {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "Mixture",
        "metadata": {"name": "tiny"},
        "spec": {
            "hiddenSize": 16,
            "layers": 2,
            "dtype": "BFloat16",
            "trunk": {"uri": "https://host/a/trunk", "sha256": trunk_of(model)},
        },
    }
    sha256 = digests(index)
    assert manifest(request_.out, "e2") == {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": "tiny-e2"},
        "spec": {
            "mixtureRef": {"name": "tiny"},
            "expertId": "e2",
            "role": "Routed",
            "layers": [0, 1],
            "version": "v1",
            "artifact": {
                "uri": f"https://host/a/e2-{sha256['e2'][:10]}.safetensors",
                "sha256": sha256["e2"],
            },
            "replicas": 2,
        },
    }
    assert manifest(request_.out, "gate")["spec"] == {
        "mixtureRef": {"name": "tiny"},
        "layers": [0, 1],
        "version": "v1",
        "artifact": {
            "uri": f"https://host/a/gate-{sha256['gate'][:10]}.safetensors",
            "sha256": sha256["gate"],
        },
        "experts": [{"id": "e0"}, {"id": "e1"}, {"id": "e2"}, {"id": "e3"}],
        "policy": {"type": "TopK", "topK": 2},
    }


def test_the_trunk_has_a_folder_that_is_a_checkpoint_without_experts(
    model: MixtralForCausalLM, request_: Request
) -> None:
    index = run(request_).index
    folder = request_.out / "trunk"
    opened = open_checkpoint(folder)
    assert trunk_sha256(opened.trunk()) == index.trunk_sha256 == trunk_of(model)
    assert index.trunk_uri == f"{request_.uri_prefix}/trunk"
    config = (request_.checkpoint / "config.json").read_bytes()
    assert (folder / "config.json").read_bytes() == config
    assert not [name for name in opened.files if ".experts." in name]
    for layer, block in enumerate(model.model.layers):
        assert torch.equal(to_torch(opened.gate(layer).copy()), block.mlp.gate.weight)
    with pytest.raises(BadCheckpoint, match="has no tensor"):
        opened.expert(0)


def test_a_damaged_trunk_is_written_again_and_a_whole_one_is_kept(request_: Request) -> None:
    run(request_)
    weights = request_.out / "trunk" / "model.safetensors"
    before, written = weights.read_bytes(), weights.stat().st_mtime_ns
    run(request_)
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(before[:-1])
    run(request_)
    assert weights.read_bytes() == before


def test_a_trunk_that_did_not_change_stays_where_it_is(request_: Request, tmp_path: Path) -> None:
    base = run(request_).index
    there = "file:///elsewhere"
    second = replace(request_, out=tmp_path / "2", base=request_.out, uri_prefix=there)
    index = run(second).index
    assert index.trunk_uri == base.trunk_uri
    assert set(tree(second.out)) == {"index.json"}
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].mlp.gate.weight.mul_(2)
    model.save_pretrained(tmp_path / "in3")
    third = replace(second, checkpoint=tmp_path / "in3", out=tmp_path / "3", base=second.out)
    index = run(third).index
    assert (index.trunk_sha256, index.trunk_uri) == (base.trunk_sha256, f"{there}/trunk")
    assert manifest(third.out, "mixture")["spec"]["trunk"]["uri"] == f"{there}/trunk"


def test_the_index_comes_back_as_it_was_written(request_: Request) -> None:
    assert run(request_).index == index_of(request_.out)


# -- new versions --------------------------------------------------------------------------------


@pytest.fixture
def better(model: MixtralForCausalLM, tmp_path: Path) -> Path:
    tensors = {name: tensor * 2 for name, tensor in slices_of(model, 3).items()}
    return save_expert(tmp_path / "e3-better.safetensors", tensors)


def test_with_a_base_only_what_changed_comes_out(
    request_: Request, better: Path, tmp_path: Path
) -> None:
    base = run(request_).index
    out = tmp_path / "second"
    following = replace(request_, out=out, base=request_.out, replaced=(Replacement(better),))
    summary = run(following)
    expected = dict.fromkeys(digests(base), Fate.UNCHANGED) | {"e3": Fate.WRITTEN}
    assert fates(summary) == expected
    entry = summary.index.entry("e3")
    assert entry is not None
    assert set(tree(out)) == {entry.file, "manifests/e3.yaml", "index.json"}
    assert versions(summary.index) == versions(base) | {"e3": "v2"}
    changed = {name for name, d in digests(summary.index).items() if d != digests(base)[name]}
    assert changed == {"e3"}
    before = tree(out)
    assert fates(run(following)) == expected | {"e3": Fate.KEPT}
    assert tree(out) == before


def test_a_chain_of_bases_never_forgets(request_: Request, better: Path, tmp_path: Path) -> None:
    first = run(request_).index
    second = replace(
        request_, out=tmp_path / "2", base=request_.out, replaced=(Replacement(better),)
    )
    run(second)
    third = run(replace(request_, out=tmp_path / "3", base=second.out)).index
    assert versions(third) == versions(first) | {"e3": "v3"}
    assert digests(third) == digests(first)


def test_only_leaves_all_else_as_in_the_base(
    request_: Request, better: Path, tmp_path: Path
) -> None:
    run(request_)
    second = replace(
        request_, out=tmp_path / "2", base=request_.out, replaced=(Replacement(better),)
    )
    base = run(second).index
    third = replace(
        second,
        out=tmp_path / "3",
        base=second.out,
        only=frozenset({"e1"}),
        replaced=(Replacement(better, "e1"),),
    )
    summary = run(third)
    assert set(summary.fates) == {"e1"}
    assert versions(summary.index) == versions(base) | {"e1": "v2"}
    assert digests(summary.index)["e1"] == digests(summary.index)["e3"]
    assert [e.name for e in summary.index.entries] == [e.name for e in base.entries]


def test_a_directory_can_be_its_own_base(request_: Request, better: Path) -> None:
    run(request_)
    again = replace(request_, base=request_.out, replaced=(Replacement(better),), version="better")
    summary = run(again)
    assert versions(summary.index)["e3"] == "better"
    assert all(entry.file for entry in summary.index.entries)
    assert manifest(request_.out, "e3")["spec"]["version"] == "better"
    assert manifest(request_.out, "e2")["spec"]["version"] == "v1"
    assert set(fates(run(again)).values()) == {Fate.UNCHANGED}


def test_a_dense_expert_stands_beside_the_others(
    model: MixtralForCausalLM, request_: Request, tmp_path: Path
) -> None:
    dense = save_expert(tmp_path / "dense.safetensors", slices_of(model, 0))
    summary = run(replace(request_, dense=Replacement(dense)))
    assert [e.name for e in summary.index.entries] == ["e0", "e1", "e2", "e3", "dense", "gate"]
    spec = manifest(request_.out, "dense")["spec"]
    assert (spec["role"], spec["expertId"]) == ("Dense", "dense")
    assert digests(summary.index)["dense"] == digests(summary.index)["e0"]
    following = run(replace(request_, out=tmp_path / "2", base=request_.out))
    assert following.index.entry("dense") is not None
    assert len(manifest(request_.out, "gate")["spec"]["experts"]) == EXPERTS


def test_a_part_of_an_expert_is_laid_over_the_rest(
    model: MixtralForCausalLM, request_: Request, tmp_path: Path
) -> None:
    name = "model.layers.1.block_sparse_moe.experts.0.w3.weight"
    one = {name: slices_of(model, 0)[name] * 3}
    patch = save_expert(tmp_path / "patch.safetensors", one)
    entry = run(replace(request_, replaced=(Replacement(patch, "e2"),))).index.entries[2]
    layers = read_expert(request_.out / str(entry.file)).layers
    original = slices_of(model, 2)
    assert layers[1].up_proj.astype("f4").tolist() == one[name].float().tolist()
    prefix = "model.layers.1.block_sparse_moe.experts.2"
    assert layers[1].gate_proj.tolist() == original[f"{prefix}.w1.weight"].tolist()


def test_a_broken_version_is_an_artifact_like_any_other(
    model: MixtralForCausalLM, request_: Request, tmp_path: Path
) -> None:
    tensors = {n: t.fill_(float("nan")) for n, t in slices_of(model, 1).items()}
    broken = save_expert(tmp_path / "broken.safetensors", tensors)
    run(replace(request_, replaced=(Replacement(broken),)))


def test_another_dtype_on_demand(request_: Request, checkpoint: Path) -> None:
    summary = run(replace(request_, dtype="Float32"))
    model = load_model(checkpoint, torch.float32)
    expected = logits(model)
    assert summary.index.dtype == "Float32"
    assert manifest(request_.out, "mixture")["spec"]["dtype"] == "Float32"
    for entry in summary.index.entries:
        assert read_metadata(request_.out / str(entry.file)).dtype == "Float32"
    assert torch.equal(logits(assemble(request_.out, model)), expected)


def test_settings_of_people_go_into_the_manifests(
    request_: Request, better: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.yaml"
    text = """
        apiVersion: v1
        kind: Namespace
        metadata: {name: anything}
        ---
        apiVersion: moeops.dev/v1alpha1
        kind: Expert
        metadata: {name: tiny-e3, labels: {team: a}}
        spec:
          version: not-this
          artifact: {uri: not-this}
          backupExpertId: e0
          rollout: {minRequests: 7}
        """
    settings.write_text(textwrap.dedent(text))
    run(replace(request_, settings=(settings,), replicas=3))
    before = manifest(request_.out, "e3")
    assert before["metadata"] == {"name": "tiny-e3", "labels": {"team": "a"}}
    assert before["spec"]["version"] == "v1"
    assert before["spec"]["backupExpertId"] == "e0"
    assert before["spec"]["artifact"]["uri"].startswith("file:///moe/artifacts/e3-")
    second = replace(
        request_, out=tmp_path / "2", base=request_.out, replaced=(Replacement(better),)
    )
    run(second)
    after = manifest(second.out, "e3")
    kept = ("backupExpertId", "rollout", "replicas", "layers", "expertId", "mixtureRef", "role")
    assert {n: after["spec"][n] for n in kept} == {n: before["spec"][n] for n in kept}
    assert after["metadata"] == before["metadata"]
    assert after["spec"]["version"] == "v2"


# -- what is refused -----------------------------------------------------------------------------

Change = Callable[[Path], object]


def config(**changed: object) -> Change:
    def change(path: Path) -> None:
        fields = json.loads((path / "config.json").read_text()) | changed
        kept = {name: value for name, value in fields.items() if value is not None}
        (path / "config.json").write_text(json.dumps(kept))

    return change


def tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(path: Path) -> None:
        loaded = load_file(path / "model.safetensors")
        edit(loaded)
        save_file(loaded, path / "model.safetensors")

    return change


def index_json(content: object) -> Change:
    def change(path: Path) -> None:
        (path / "model.safetensors").rename(path / "one.safetensors")
        (path / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


W1 = "model.layers.0.block_sparse_moe.experts.1.w1.weight"
GATE = "model.layers.1.block_sparse_moe.gate.weight"
BAD_CHECKPOINTS: list[Any] = [
    pytest.param(lambda p: (p / "config.json").unlink(), "config.json cannot be read", id="none"),
    pytest.param(lambda p: (p / "config.json").write_text("{"), "is not JSON", id="half a config"),
    pytest.param(
        lambda p: (p / "config.json").write_text("[]"), r"config.json is \[\]", id="config a list"
    ),
    pytest.param(config(model_type="llama"), "model_type is 'llama'", id="another family"),
    pytest.param(config(mlp_only_layers=[1]), "every layer must have experts", id="dense layer"),
    pytest.param(config(hidden_act="gelu"), "hidden_act is 'gelu'", id="another function"),
    pytest.param(config(num_local_experts=None), "num_local_experts is missing", id="no experts"),
    pytest.param(config(num_local_experts=0), "num_local_experts is 0", id="zero experts"),
    pytest.param(config(num_experts_per_tok=5), "num_experts_per_tok is 5", id="top 5 of 4"),
    pytest.param(config(hidden_size="16"), "hidden_size is '16'", id="size as text"),
    pytest.param(config(hidden_size=32), r"shape \[24, 16\]; by config.json", id="other width"),
    pytest.param(config(num_local_experts=3), f"{W1[:-11]}.*|experts.3.*is 3", id="one lost"),
    pytest.param(
        config(num_local_experts=5), "no tensor .*experts.4.w1.*config.json", id="one more"
    ),
    pytest.param(config(num_hidden_layers=1), "num_hidden_layers in config.json is 1", id="layer"),
    pytest.param(
        lambda p: (p / "model.safetensors").unlink(), "only safetensors are read", id="no weights"
    ),
    pytest.param(
        lambda p: (p / "model.safetensors").write_bytes(b"PK\x03\x04pickle......"),
        "header length is",
        id="pickle",
    ),
    pytest.param(tensors(lambda t: t.pop(W1)), f"has no tensor {W1}", id="tensor missing"),
    pytest.param(tensors(lambda t: t.pop(GATE)), f"has no tensor {GATE}", id="gate missing"),
    pytest.param(
        tensors(lambda t: t.update({GATE: t[GATE][:3].clone()})),
        r"gate.weight has shape \[3, 16\]; by config.json it is \[4, 16\]",
        id="gate with a row less",
    ),
    pytest.param(
        tensors(lambda t: t.update({W1: t[W1].float()})),
        "e1 is stored in BFloat16 and Float32; choose one",
        id="two dtypes in one expert",
    ),
    pytest.param(
        tensors(lambda t: t.update({W1: t[W1].to(torch.int8)})), "is I8; it must be", id="integers"
    ),
    pytest.param(index_json({}), "weight_map must be an object", id="index without a map"),
    pytest.param(index_json({"weight_map": {"x": 3}}), "weight_map must be", id="file a number"),
    pytest.param(
        index_json({"weight_map": {"x": "../../etc/passwd"}}),
        "names '../../etc/passwd'; it must be a file beside it",
        id="path out of the checkpoint",
    ),
    pytest.param(
        index_json({"weight_map": {"x": "two.safetensors"}}), "cannot be read", id="shard missing"
    ),
    pytest.param(
        index_json({"weight_map": {"x": "one.safetensors"}}), "it is not there", id="not in shard"
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, change: Change, message: str
) -> None:
    shutil.copytree(checkpoint, tmp_path / "in")
    change(tmp_path / "in")
    with pytest.raises(Refused, match=message):
        make_plan(Request(tmp_path / "in", tmp_path / "out", "tiny"))
    assert not (tmp_path / "out").exists()


def edited(edit: Callable[[Any], Any]) -> Callable[[Path, MixtralForCausalLM], Path]:
    """A file of expert 3 with tensors made different by `edit`."""

    def make(path: Path, model: MixtralForCausalLM) -> Path:
        return save_expert(path / "x.safetensors", edit(slices_of(model, 3)))

    return make


BAD_FILES: list[Any] = [
    pytest.param(edited(lambda t: {}), "holds no tensors", id="empty"),
    pytest.param(edited(lambda t: {"lm_head.weight": t.popitem()[1]}), "'lm_head", id="trunk"),
    pytest.param(
        edited(lambda t: {n.replace("s.3.", "s.9."): v for n, v in t.items()}),
        "'e9' must be one of e0 to e3",
        id="unknown expert",
    ),
    pytest.param(
        edited(lambda t: {n.replace("s.1.b", "s.7.b"): v for n, v in t.items()}),
        r"expert e3 has layers \[0, 1, 7\]; the model has \[0, 1\]",
        id="unknown layer",
    ),
    pytest.param(
        edited(lambda t: {n: v.float() for n, v in t.items()}),
        "e3 is stored in Float32; it must be BFloat16, as the others",
        id="another dtype",
    ),
    pytest.param(
        edited(lambda t: {n: v[:, :-1].clone() for n, v in t.items() if ".w2." not in n}),
        r"expert e3: layers.0.down_proj has shape \[16, 24\]; it must be \[15, 24\]",
        id="another width",
    ),
    pytest.param(
        edited(lambda t: {n: v[0].clone() for n, v in t.items()}),
        "e3: layer 0 has no w1 with two dimensions",
        id="vectors",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD_FILES)
def test_a_bad_replacement_is_refused(
    model: MixtralForCausalLM,
    request_: Request,
    tmp_path: Path,
    make: Callable[[Path, MixtralForCausalLM], Path],
    message: str,
) -> None:
    path = make(tmp_path, model)
    with pytest.raises(Refused, match=message):
        make_plan(replace(request_, replaced=(Replacement(path),)))


def test_one_name_never_stands_for_two_digests(
    request_: Request, better: Path, tmp_path: Path
) -> None:
    run(request_)
    changed = replace(request_, replaced=(Replacement(better),))
    with pytest.raises(BadCheckpoint, match=r"its version v1 is \w{10} already; .* or --base"):
        run(changed)
    with pytest.raises(BadCheckpoint, match="its version v1 is"):
        run(replace(changed, out=tmp_path / "2", base=request_.out, version="v1"))
    run(replace(changed, version="v1.1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"mixture": "other"}, "must be 'tiny', as in its index", id="other mixture"),
        pytest.param({"base": Path("/")}, "--base / has no index.json", id="no base"),
        pytest.param({"only": frozenset({"e0"})}, "--only needs --base", id="only without base"),
        pytest.param({"settings": (Path("/none"),)}, "/none cannot be read", id="no settings"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    request_: Request, changes: dict[str, Any], message: str
) -> None:
    run(request_)
    with pytest.raises(Refused, match=message):
        make_plan(replace(request_, **changes))


def test_a_base_of_another_shape_is_refused(request_: Request, tmp_path: Path) -> None:
    run(request_)
    other = replace(request_, base=request_.out, out=tmp_path / "2", dtype="Float32")
    with pytest.raises(BadCheckpoint, match="another --mixture"):
        make_plan(other)
    with pytest.raises(BadCheckpoint, match="--only names 'e9'"):
        make_plan(replace(other, dtype=None, only=frozenset({"e9"})))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "settings.yaml: ", id="no YAML"),
        pytest.param("[1]", r"settings.yaml\[0\] is \[1\]", id="a list"),
        pytest.param("apiVersion: moeops.dev/v1", "kind is missing", id="no kind"),
        pytest.param(
            "{apiVersion: moeops.dev/v1, kind: Expert, metadata: {name: tiny-e9}}",
            "is about Expert tiny-e9; there are",
            id="about nobody",
        ),
    ],
)
def test_bad_settings_are_refused(
    request_: Request, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(BadCheckpoint, match=message):
        make_plan(replace(request_, settings=(path,)))


@pytest.mark.parametrize("name", ["e0", "gate", "mixture", "Dense", "-x"])
def test_a_dense_expert_needs_a_name_of_its_own(
    model: MixtralForCausalLM, request_: Request, tmp_path: Path, name: str
) -> None:
    path = save_expert(tmp_path / "d.safetensors", slices_of(model, 0))
    with pytest.raises(BadCheckpoint, match=f"the id is '{name}'"):
        make_plan(replace(request_, dense=Replacement(path, name)))


def with_policy(request: Request, content: object) -> Request:
    path = request.out.with_name("policy.json")
    path.write_text(json.dumps(content))
    return replace(request, policy=path)


CONTEXTS = {
    "bound": "4",
    "known": [{"name": "legal", "biases": [{"id": "e1", "bias": "2"}]}],
}


def test_a_policy_goes_over_what_the_checkpoint_says_and_makes_another_version(
    request_: Request,
) -> None:
    before = run(request_)
    after = replace(request_, base=request_.out, only=frozenset({"gate"}))
    summary = run(with_policy(after, {"contexts": CONTEXTS, "overflow": "NextBest"}))

    assert versions(summary.index)["gate"] == "v2"
    assert digests(summary.index)["e0"] == digests(before.index)["e0"]
    assert manifest(request_.out, "gate")["spec"]["policy"] == {
        "type": "TopK",
        "topK": 2,
        "capacityFactor": "1.2",
        "overflow": "NextBest",
        "contexts": CONTEXTS,
    }
    entry = summary.index.entry("gate")
    assert entry is not None
    assert entry.file is not None
    metadata = read_metadata(request_.out / entry.file, entry.sha256)
    assert isinstance(metadata, GateMetadata)
    assert metadata.policy.to_dict() == manifest(request_.out, "gate")["spec"]["policy"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"topK": 9}, "topK is 9; there are 4 experts"),
        ({"type": "Coin"}, "type is 'Coin'; it must be one of TopK"),
        ({"bias": "Logits"}, "the policy needs layers.0.bias, which the checkpoint does not have"),
        ([], "is []; it must be an object"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(request_: Request, content: object, words: str) -> None:
    with pytest.raises(BadCheckpoint) as error:
        make_plan(with_policy(request_, content))
    assert words in str(error.value)
