"""The tools on a small random model: what they write, what they leave alone, what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from moe_artifacts.artifact import read_expert, read_gate
from moe_core.policy import Bias, Policy
from moe_tuning.folder import open_folder
from tests.artifacts.models import index_of
from tests.support.gates import write_gate
from tests.tuning.stage import bits, run, write_base, write_tokens


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for seed, name in enumerate(("text", "old", "held")):
        write_tokens(folder / f"{name}.jsonl", seed)
    write_tokens(folder / "short.jsonl", 3, sequences=7)
    (folder / "held.txt").write_text("text of bytes, " * 40)
    return folder


def tool(
    capsys: pytest.CaptureFixture[str], base: Path, out: Path, files: Path, verb: str, *more: object
) -> tuple[int, str, str]:
    """Run a tool with the usual texts."""
    texts = ["--text", files / "text.jsonl", "--heldout", files / "held.jsonl"]
    if verb in ("grow", "finetune"):
        texts += ["--familiar", files / "old.jsonl"]
    return run(capsys, verb, base, out, *texts, *more)


def manifest(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "manifests" / f"{name}.yaml").read_text())
    return found


def written(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "manifests").iterdir()}


def test_pruning_leaves_a_row_out_and_writes_the_gate_alone(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    code, out, complaints = tool(capsys, base, tmp_path, files, "prune", "--experts", "e3")
    assert (code, complaints) == (0, "")
    before, after = open_folder(base).gate(), open_folder(tmp_path).gate()
    assert after.metadata.experts == ("e0", "e1", "e2")
    for layer, held in after.layers.items():
        assert np.array_equal(held.weight, before.layers[layer].weight[:3])
    spec = manifest(tmp_path, "gate")["spec"]
    assert written(tmp_path) == {"gate"}
    assert (spec["version"], [e["id"] for e in spec["experts"]]) == ("v2", ["e0", "e1", "e2"])
    assert [e.name for e in index_of(tmp_path).entries] == ["e0", "e1", "e2", "gate"]
    assert "kubectl delete expert small-e3" in out
    assert "small-e2 names e3 as its backup: give it another before e3 goes" in out
    assert set(bits(out)) == {"held"}


def test_the_least_used_are_pruned_as_the_table_of_use_says(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    code, out, _ = tool(capsys, base, tmp_path, files, "prune", "--count", "2")
    used = [line.split()[0] for line in out.splitlines() if line.startswith("e")][1:5]
    assert code == 0
    assert {entry.name for entry in index_of(tmp_path).entries[:2]} == set(used[:2])


def test_merging_makes_one_expert_in_the_place_of_several(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    code, out, _ = tool(capsys, base, tmp_path, files, "merge", "--experts", "e0,e1")
    assert code == 0
    made = open_folder(tmp_path)
    assert made.gate().metadata.experts == ("e0-e1", "e2", "e3")
    assert made.expert("e0-e1").metadata == open_folder(base).expert("e0").metadata
    spec = manifest(tmp_path, "e0-e1")["spec"]
    assert written(tmp_path) == {"gate", "e0-e1"}
    assert (spec["replicas"], spec["version"], "backupExpertId" in spec) == (2, "v1", False)
    assert "delete expert small-e0" in out
    assert "delete expert small-e1" in out


def test_growing_adds_a_row_and_changes_no_other(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    options = ("--from", "e2", "--steps", "3")
    code, _, complaints = tool(capsys, base, tmp_path, files, "grow", *options)
    assert code == 0
    assert "moe grow: step 0 of 3" in complaints
    before, after = open_folder(base).gate(), open_folder(tmp_path).gate()
    assert after.metadata.experts == ("e0", "e1", "e2", "e3", "e4")
    for layer, held in after.layers.items():
        assert np.array_equal(held.weight[:4], before.layers[layer].weight)
    spec = manifest(tmp_path, "e4")["spec"]
    assert written(tmp_path) == {"gate", "e4"}
    assert (spec["expertId"], spec["backupExpertId"], spec["replicas"]) == ("e4", "e2", 2)
    grown, source = open_folder(tmp_path).expert("e4"), open_folder(base).expert("e2")
    assert not np.array_equal(grown.layers[0].up_proj, source.layers[0].up_proj)


def test_without_training_the_grown_expert_is_a_copy(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    options = ("--from", "e2", "--steps", "0", "--id", "legal")
    assert tool(capsys, base, tmp_path, files, "grow", *options)[0] == 0
    entries = {name: index_of(f).entry(name) for f, name in ((base, "e2"), (tmp_path, "legal"))}
    assert len({entry.sha256 for entry in entries.values() if entry}) == 1


@pytest.mark.parametrize(
    ("parts", "new"), [("gate", {"gate"}), ("e1", {"e1"}), ("gate,e1", {"gate", "e1"})]
)
def test_only_the_named_parts_are_trained(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    files: Path,
    tmp_path: Path,
    parts: str,
    new: set[str],
) -> None:
    options = ("--parts", parts, "--steps", "2", "--version", "blue")
    code, out, _ = tool(capsys, base, tmp_path, files, "finetune", *options)
    assert code == 0
    assert written(tmp_path) == new
    entries = {e.name: e for e in index_of(tmp_path).entries}
    assert {name for name, entry in entries.items() if entry.version == "blue"} == new
    assert {name for name, entry in entries.items() if entry.file} == new
    together = {"id": "e1", "versions": ["blue"]}
    if new == {"gate", "e1"}:
        assert together in manifest(tmp_path, "gate")["spec"]["experts"]
        assert "belong together" in out


def test_what_a_tool_wrote_can_be_changed_again_and_verified(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    grown, pruned = tmp_path / "grown", tmp_path / "pruned"
    assert tool(capsys, base, grown, files, "grow", "--from", "e2", "--steps", "1")[0] == 0
    code, _, complaints = tool(capsys, grown, pruned, files, "prune", "--experts", "e4")
    assert code == 1
    assert "name its folder with --artifacts" in complaints
    options = ("--experts", "e4", "--artifacts", base)
    assert tool(capsys, grown, pruned, files, "prune", *options)[0] == 0
    code, out, _ = run(capsys, "diff", base, pruned, "--artifacts", base)
    assert (code, out.splitlines()[0].split()[0]) == (5, "gate:")  # v3: the rows are those of v1
    assert run(capsys, "verify", grown)[0] == 0
    assert read_gate(next(pruned.glob("gate-*"))).metadata.experts == ("e0", "e1", "e2", "e3")


def test_the_same_again_is_the_same(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    for verb, *options in (
        ("grow", "--from", "e1", "--steps", "3"),
        ("merge", "--experts", "e3,e1", "--steps", "3"),
        ("finetune", "--parts", "gate,e0", "--steps", "3", "--seed", "9"),
    ):
        for again in ("1", "2"):
            assert tool(capsys, base, tmp_path / verb / again, files, verb, *options)[0] == 0
        assert run(capsys, "diff", *(tmp_path / verb / a for a in "12"))[0] == 0, verb


def test_versions_that_a_gate_accepts_stay_those_of_the_experts_that_stay(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--parts", "gate,e1", "--steps", "1")
    assert tool(capsys, base, first, files, "finetune", *options)[0] == 0
    pruned = ("--experts", "e3", "--artifacts", base)
    assert tool(capsys, first, second, files, "prune", *pruned)[0] == 0
    experts = manifest(second, "gate")["spec"]["experts"]
    assert experts == [{"id": "e0"}, {"id": "e1", "versions": ["v2"]}, {"id": "e2"}]


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        pytest.param("prune", "", "give either --experts or --count", id="prune what"),
        pytest.param("prune", "--experts e0 --count 1", "either --experts or", id="prune both"),
        pytest.param("prune", "--experts e9", "no expert 'e9'; it lists e0, e1", id="unknown"),
        pytest.param("prune", "--experts e0,e1,e2", "1 experts would be left", id="below top-k"),
        pytest.param("prune", "--count 4", "each token is sent to 2", id="all of them"),
        pytest.param("merge", "--experts e0", "needs two different ones", id="merging one"),
        pytest.param("merge", "--experts e0,e0", "needs two different ones", id="merging itself"),
        pytest.param("merge", "--experts e0,x", "lists no expert 'x'", id="merge unknown"),
        pytest.param("merge", "--experts e0,e1,e2,e3", "1 experts would be left", id="into one"),
        pytest.param("merge", "--experts e0,e1 --id e3", "has a part of that name", id="taken id"),
        pytest.param("grow", "--from e7", "the gate lists no expert 'e7'", id="grow from nothing"),
        pytest.param("grow", "--id gate", "has a part of that name", id="named gate"),
        pytest.param("grow", "--id mixture", "--id is 'mixture'; it must be", id="named mixture"),
        pytest.param("finetune", "--parts e8", "lists no expert 'e8'", id="tune unknown"),
        pytest.param("finetune", "--parts gate --steps 0", "nothing would be", id="no steps"),
        pytest.param("prune", "--count 1 --text {}/none.txt", "--text: ", id="no text"),
        pytest.param("prune", "--count 1 --text {}/short.jsonl", "there are 7 seq", id="short"),
        pytest.param("prune", "--count 1 --text {}/held.txt", "no tokenizer", id="not of bytes"),
        pytest.param(
            "prune",
            "--count 1 --bytes --length 64 --heldout {}/held.txt",
            "--heldout has the token 1",
            id="vocabulary",
        ),
        pytest.param(
            "prune",
            "--count 1 --bytes --length 999 --heldout {}/held.txt",
            "held.txt has 600 bytes; a sequence has 999 (--length)",
            id="too short a text",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_and_writes_nothing(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    files: Path,
    tmp_path: Path,
    verb: str,
    options: str,
    message: str,
) -> None:
    out = tmp_path / "out"
    more = options.replace("{}", str(files)).split()
    code, _, complaints = tool(capsys, base, out, files, verb, *more)
    assert code == 1
    assert message in complaints
    assert complaints.startswith("moe: ")
    assert complaints.count("\n") == 1
    assert not out.exists()


def test_a_folder_is_never_changed_in_place(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path
) -> None:
    code, _, complaints = tool(capsys, base, base, files, "prune", "--experts", "e3")
    assert code == 1
    assert "the folder that is changed; give another one" in complaints


def test_no_folder_of_split(
    capsys: pytest.CaptureFixture[str], files: Path, tmp_path: Path
) -> None:
    code, _, complaints = tool(capsys, tmp_path, tmp_path / "o", files, "prune", "--count", "1")
    assert code == 1
    assert "has no index.json; it must be a folder that moe split wrote" in complaints


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param("merge . x --text t --heldout h", "required: --experts", id="merge what"),
        pytest.param("grow . x --text t --heldout h", "required: --familiar", id="grow blindly"),
        pytest.param("finetune . x --text t --heldout h", "required: --parts", id="tune what"),
        pytest.param("prune /none x --text t --heldout h", "'/none' is no directory", id="base"),
        pytest.param("prune . x --heldout h", "required: --text", id="no text"),
        pytest.param("prune . x --text t --heldout h --count 0", "--count: it is '0'", id="none"),
        pytest.param("merge . x --experts A,b", "--experts: it is 'A'", id="bad id"),
        pytest.param("grow . x --rate 0", "--rate: it is '0'; it must be", id="no rate"),
        pytest.param("grow . x --keep nan", "--keep: it is 'nan'", id="not a number"),
        pytest.param("grow . x --steps -1", "--steps: it is '-1'; it must be", id="steps"),
        pytest.param("diff a", "required: B", id="one side"),
    ],
)
def test_a_wrong_command_line_is_explained(
    capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    code, _, complaints = run(capsys, *command.split())
    assert code == 2
    assert message in complaints


@pytest.mark.parametrize("verb", ["prune", "merge", "grow", "finetune", "dense", "diff"])
def test_help_is_there(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: moe {verb} ")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert f"    {verb} " in out


def test_torch_is_loaded_only_by_tools_that_compute(base: Path) -> None:
    program = (
        "import contextlib, sys\n"
        "from moe_tuning.__main__ import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        f"assert main(['diff', {str(base)!r}, {str(base)!r}]) == 0\n"
        "sys.exit(sorted({'torch', 'transformers', 'grpc'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- diff ----------------------------------------------------------------------------------------


def artifact(folder: Path, name: str) -> Path:
    return open_folder(folder).find(next(e for e in index_of(folder).entries if e.name == name))


def test_the_same_has_no_difference(capsys: pytest.CaptureFixture[str], base: Path) -> None:
    assert run(capsys, "diff", base, base) == (0, "", "")
    assert run(capsys, "diff", artifact(base, "e1"), artifact(base, "e1")) == (0, "", "")


def test_experts_are_compared_tensor_by_tensor(
    capsys: pytest.CaptureFixture[str], base: Path
) -> None:
    code, out, _ = run(capsys, "diff", artifact(base, "e0"), artifact(base, "e1"))
    one, other = (
        read_expert(artifact(base, e)).layers[1].down_proj.astype(float) for e in ("e0", "e1")
    )
    change = np.linalg.norm(other - one) / np.linalg.norm(one)
    assert code == 5
    assert f"layers.1.down_proj: {change:.2%}" in out.splitlines()
    assert len(out.splitlines()) == 6


def test_folders_are_compared_part_by_part(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, tmp_path: Path
) -> None:
    assert tool(capsys, base, tmp_path, files, "merge", "--experts", "e1,e2")[0] == 0
    code, out, _ = run(capsys, "diff", base, tmp_path)
    lines = out.splitlines()
    assert code == 5
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "e1:", "e2:", "gate:", "e1-e2:"
    ]  # fmt: skip
    assert "  experts: - e1, e2" in lines
    assert "  experts: + e1-e2" in lines
    assert not any("rows of" in line for line in lines)  # those that are in both are the same


def test_what_gates_have_learned_beside_their_rows_is_compared_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = Policy(1, bias=Bias.LOGITS)
    ones = {0: np.ones((2, 4), np.float32)}
    paths = []
    for name, bias in (("a", [1, 2]), ("b", [1, 3])):
        others = {"layers.0.bias": np.array(bias, np.float32)}
        made = write_gate(tmp_path, ones, ("e0", "e1"), policy=policy, others=others, name=name)
        paths.append(made.path)
    assert run(capsys, "diff", *paths) == (5, "layer 0: bias of e1 50.00%\n", "")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        pytest.param("{base}", "{e0}", "must both be folders, or both artifacts", id="mixed"),
        pytest.param("{e0}", "{gate}", "both kinds: expert and gate", id="kinds"),
        pytest.param("/none", "{e0}", "/none cannot be read", id="nothing"),
        pytest.param("{files}", "{base}", "has no index.json", id="no folder of split"),
    ],
)
def test_what_cannot_be_compared_is_an_error(
    capsys: pytest.CaptureFixture[str], base: Path, files: Path, a: str, b: str, message: str
) -> None:
    names = {"base": base, "files": files}
    names |= {name: artifact(base, name) for name in ("e0", "gate")}
    code, out, complaints = run(capsys, "diff", a.format(**names), b.format(**names))
    assert (code, out) == (1, "")
    assert message in complaints
