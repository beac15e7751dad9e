"""Comparing two versions on a golden set: the numbers, and that nothing else is ever judged."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from moe_artifacts.checkpoint import open_checkpoint
from moe_artifacts.golden import Golden, Sequence, encode, sha256_of
from moe_artifacts.trunk_folder import write_trunk
from moe_client import attach, load_trunk, use_local
from moe_client.comparison import Flips, Pair, count_flips, summarise, to_error, to_ids, to_result
from moe_client.errors import InvalidRequest, NotFound, Unavailable
from moe_client.evaluation import main
from moe_client.evaluator import ATTEMPTS, Versions, batches, compare
from moeops.v1 import router_pb2
from tests.client.gated import GatedRouter, another_gate, model_with, own_gate
from tests.client.test_attachment import asked, some_tokens
from tests.client.tiny import VOCABULARY, describe, load_tiny, save_tiny
from tests.client.versions import CANDIDATE, STABLE, TRIED, TwoVersions, candidate_of
from tests.fakes.router import FakeRouter, in_a_thread, refuse

VERSIONS = Versions(TRIED, STABLE, CANDIDATE)
FACTOR = 3.0


def golden_set() -> Golden:
    lengths = [6, 9, 6, 12, 9, 6, 2, 9, 6, 12]
    tokens = [some_tokens(1, n, seed)[0].numpy() for seed, n in enumerate(lengths)]
    names = ["odd" if n % 2 else "even" for n in range(len(lengths))]
    made = [Sequence(name, t.astype(np.int32)) for name, t in zip(names, tokens, strict=True)]
    return Golden(VOCABULARY, ("even", "odd"), tuple(made))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.float32)


@pytest.fixture
def served(checkpoint: Path) -> TwoVersions:
    return TwoVersions.of(checkpoint, FACTOR)


@pytest.fixture
def router(checkpoint: Path, served: TwoVersions) -> Iterator[FakeRouter]:
    with in_a_thread(FakeRouter(describe(checkpoint), otherwise=served.act)) as fake:
        yield fake


@torch.no_grad()
def losses(model: Any, golden: Golden) -> list[float]:
    """Each sequence's mean loss, computed one by one in one process."""
    use_local(model)
    means = []
    for sequence in golden.sequences:
        ids = torch.from_numpy(sequence.tokens.astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        means.append(float(functional.cross_entropy(logits, ids[0, 1:])) / math.log(2))
    return means


# -- the numbers ---------------------------------------------------------------------------------


def test_a_summary_is_of_paired_differences() -> None:
    pairs = [Pair("a", 2.0, 2.5), Pair("a", 1.0, 1.25), Pair("b", 3.0, 3.0)]
    assert summarise(pairs) == {
        "n": 3,
        "mean": 0.25,
        "sd": 0.25,
        "stable": 2.0,
        "candidate": 2.25,
    }
    assert summarise(pairs[:1])["sd"] == 0.0


def test_flips_are_of_sets_and_of_the_layers_that_are_asked_for() -> None:
    stable = {n: np.array([[0, 1], [2, 3], [4, 5]], np.int32) for n in (0, 1, 2)}
    candidate = {**stable, 1: np.array([[1, 0], [2, 4], [5, 4]], np.int32)}
    assert count_flips(stable, candidate, (1, 2)) == Flips(1, 6)
    assert count_flips(stable, candidate, (2,)).percent == 0.0
    assert count_flips(stable, candidate, ()).percent == 0.0


def test_flips_of_a_gate_are_of_ids_whatever_its_list_and_top_k() -> None:
    stable = {0: to_ids(np.array([[0, 1], [2, 1], [2, 0]], np.int32), ("a", "b", "c"))}
    reordered = {0: to_ids(np.array([[2, 0], [2, 1], [0, 2]], np.int32), ("b", "c", "a"))}
    assert count_flips(stable, reordered, (0,)) == Flips(2, 3)
    narrow = {0: to_ids(np.array([[0], [1], [2]], np.int32), ("a", "b", "c"))}
    assert count_flips(stable, narrow, (0,)) == Flips(3, 3)
    empty = {0: to_ids(np.array([[0, -1], [1, -1], [0, 2]], np.int32), ("a", "b", "c"))}
    assert count_flips(narrow, empty, (0,)) == Flips(1, 3)


@given(
    st.lists(st.floats(0, 100), min_size=16, max_size=40),
    st.lists(st.text("abcdef.-", min_size=40, max_size=40), min_size=16, max_size=16, unique=True),
)
def test_a_result_fits_a_termination_message(values: list[float], names: list[str]) -> None:
    pairs = [Pair(names[n % 16], value, values[-n]) for n, value in enumerate(values)]
    named = {"golden": "a" * 64, "expert": "e" * 50, "stable": "b" * 64, "candidate": "c" * 64}
    result = to_result(named, pairs, Flips(1, 3))
    assert len(result.encode()) <= 3500
    fields = json.loads(result)
    assert fields["flippedPercent"] == 33.333333
    assert sum(part["n"] for part in fields["slices"].values()) == fields["all"]["n"] == len(pairs)


@given(st.text(max_size=9000))
def test_an_error_fits_too(sentence: str) -> None:
    result = to_error(sentence)
    assert len(result.encode()) <= 3500
    assert " ".join(sentence.split()).startswith(json.loads(result)["error"])


@given(st.integers(1, 40))
def test_batches_are_of_equal_length_and_hold_each_sequence_once(most: int) -> None:
    golden = golden_set()
    places = []
    for batch in batches(golden, most):
        assert len(batch.places) == 1 or batch.tokens.numel() <= most
        for place, tokens in zip(batch.places, batch.tokens, strict=True):
            assert tokens.tolist() == golden.sequences[place].tokens.tolist()
            places.append(place)
    assert sorted(places) == list(range(len(golden.sequences)))


# -- runs ----------------------------------------------------------------------------------------


def run(checkpoint: Path, router: FakeRouter) -> tuple[list[Pair], Flips, list[float]]:
    model, pauses = load_trunk(checkpoint), list[float]()
    with attach(model, router.address) as attachment:
        pairs, flips = compare(model, attachment, golden_set(), VERSIONS, pause=pauses.append)
    return pairs, flips, pauses


def test_each_sequence_is_computed_by_both_versions(
    checkpoint: Path, router: FakeRouter, served: TwoVersions
) -> None:
    pairs, flips, pauses = run(checkpoint, router)
    golden = golden_set()
    stable = losses(load_tiny(checkpoint), golden)
    candidate = losses(candidate_of(load_tiny(checkpoint), FACTOR), golden)
    assert [pair.slice for pair in pairs] == [s.slice for s in golden.sequences]
    assert [pair.stable for pair in pairs] == pytest.approx(stable, rel=1e-5)
    assert [pair.candidate for pair in pairs] == pytest.approx(candidate, rel=1e-5)
    assert stable != pytest.approx(candidate, rel=1e-2)
    assert flips.choices == golden.tokens
    assert 0 < flips.flipped < flips.choices
    assert pauses == []
    assert set(served.forced) == {(TRIED,)}


def degrade(response: router_pb2.RowsResponse) -> None:
    response.sequences[0].degraded, response.sequences[0].degraded_ppm = True, 1


def repin(response: router_pb2.RowsResponse) -> None:
    response.sequences[-1].repinned_experts.append(TRIED)


def fall_to_stable(response: router_pb2.RowsResponse) -> None:
    response.sequences[0].rungs.add(rung=router_pb2.RUNG_STABLE, expert_id=TRIED, rows=1)


def take_a_replica(response: router_pb2.RowsResponse) -> None:
    response.sequences[0].rungs.add(rung=router_pb2.RUNG_REPLICA, expert_id=TRIED, rows=1)


@pytest.mark.parametrize(
    ("spoil", "retried"),
    [
        pytest.param(degrade, True, id="degraded"),
        pytest.param(repin, True, id="re-pinned"),
        pytest.param(fall_to_stable, True, id="stable for the candidate"),
        pytest.param(take_a_replica, False, id="a replica is the same"),
    ],
)
def test_what_is_no_evidence_is_computed_again(
    checkpoint: Path, router: FakeRouter, served: TwoVersions, spoil: Any, retried: bool
) -> None:
    clean, flips, _ = run(checkpoint, router)
    served.spoil = [lambda response: None, spoil, lambda response: None, spoil]
    pairs, again, pauses = run(checkpoint, router)
    assert (pairs, again) == (clean, flips)
    assert bool(pauses) is retried


def test_without_evidence_nothing_is_judged(
    checkpoint: Path, router: FakeRouter, served: TwoVersions
) -> None:
    served.spoil = [degrade] * 100
    with pytest.raises(Unavailable, match=rf"e1 aaaaaaaaaa gave no evidence in {ATTEMPTS} tries"):
        run(checkpoint, router)


def test_what_no_other_try_changes_is_told_at_once(checkpoint: Path, router: FakeRouter) -> None:
    router.script = [refuse(grpc.StatusCode.NOT_FOUND, "layer 0 is not served")]
    with pytest.raises(NotFound, match="layer 0"):
        run(checkpoint, router)
    assert len(router.requests) == 1


def test_versions_of_a_gate_are_compared_in_all_its_layers(checkpoint: Path) -> None:
    stable = own_gate(checkpoint)
    candidate = another_gate(checkpoint, "v2", ("e3", "e1", "e0"), 1)
    golden, versions = golden_set(), Versions("gate", stable.sha256, candidate.sha256, gate=True)
    router, model = GatedRouter.of(checkpoint, stable, candidate), load_trunk(checkpoint)
    with in_a_thread(router), attach(model, router.address) as attachment:
        pairs, flips = compare(model, attachment, golden, versions, pause=lambda seconds: None)
        unknown = Versions("g", stable.sha256, candidate.sha256, gate=True)
        with pytest.raises(InvalidRequest, match="gate is 'g'; the mixture has gate"):
            compare(model, attachment, golden, unknown, pause=lambda seconds: None)
    ours = [pair.stable for pair in pairs], [pair.candidate for pair in pairs]
    theirs = [losses(model_with(checkpoint, gate), golden) for gate in (stable, candidate)]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
    assert flips == Flips(2 * golden.tokens, 2 * golden.tokens)  # one expert is never two


def test_a_gate_is_run_with_the_experts_that_are_tried_out_with_it(checkpoint: Path) -> None:
    stable = own_gate(checkpoint)
    candidate = another_gate(checkpoint, "v2", ("e3", "e1", "e0"), 1)
    beside = {"e1": (STABLE, CANDIDATE), "e3": ("3" * 64, "4" * 64)}
    versions = Versions("gate", stable.sha256, candidate.sha256, gate=True, beside=beside)
    seen: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    router, model = GatedRouter.of(checkpoint, stable, candidate), load_trunk(checkpoint)
    with in_a_thread(router), attach(model, router.address) as attachment:
        compare(model, attachment, golden_set(), versions, pause=lambda seconds: None)
    for request in asked(router):
        for sequence in request.sequences:
            forced = tuple(sorted((f.expert_id, f.sha256) for f in sequence.forced))
            seen.setdefault(sequence.gate_sha256 or request.gate_sha256, set()).add(forced)
    assert seen == {
        stable.sha256: {(("e1", STABLE), ("e3", "3" * 64))},
        candidate.sha256: {(("e1", CANDIDATE), ("e3", "4" * 64))},
    }


def test_a_gate_is_run_with_the_other_gates_that_are_tried_out_with_it() -> None:
    beside = {"e1": (STABLE, CANDIDATE), "gate/lower": ("3" * 64, "4" * 64)}
    versions = Versions("upper", "5" * 64, "6" * 64, gate=True, beside=beside)
    old, new = versions.stable, versions.candidate
    assert versions.gates(old) == {"upper": "5" * 64, "lower": "3" * 64}
    assert versions.gates(new) == {"upper": "6" * 64, "lower": "4" * 64}
    assert [versions.experts(old), versions.experts(new)] == [{"e1": STABLE}, {"e1": CANDIDATE}]
    alone = Versions(TRIED, STABLE, CANDIDATE)
    assert (alone.experts(STABLE), alone.gates(STABLE)) == ({TRIED: STABLE}, {})


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def given_(checkpoint: Path, router: FakeRouter, tmp_path: Path) -> dict[str, str]:
    golden, trunk = golden_set(), tmp_path / "trunk"
    (tmp_path / "golden.safetensors").write_bytes(encode(golden))
    opened = open_checkpoint(checkpoint)
    write_trunk(trunk, opened, lambda count: None)
    return {
        "MOE_EVAL_ROUTERS": f"127.0.0.1:9,{router.address}",
        "MOE_EVAL_EXPERT": TRIED,
        "MOE_EVAL_STABLE": STABLE,
        "MOE_EVAL_CANDIDATE": CANDIDATE,
        "MOE_EVAL_TRUNK_URI": trunk.as_uri(),
        "MOE_EVAL_TRUNK_SHA256": describe(checkpoint).trunk_sha256,
        "MOE_EVAL_GOLDEN_URI": (tmp_path / "golden.safetensors").as_uri(),
        "MOE_EVAL_GOLDEN_SHA256": sha256_of(golden),
        "MOE_EVAL_RESULT": str(tmp_path / "result"),
    }


def test_the_result_is_a_file_that_is_always_the_same(
    given_: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([], given_) == 0
    result = (tmp_path / "result").read_text()
    fields = json.loads(result)
    assert [*fields] == [
        "golden", "expert", "stable", "candidate", "all", "slices", "flippedPercent",
    ]  # fmt: skip
    assert fields["golden"] == given_["MOE_EVAL_GOLDEN_SHA256"]
    assert fields["all"]["n"] == 10
    assert {name: part["n"] for name, part in fields["slices"].items()} == {"even": 5, "odd": 5}
    assert 0 < fields["flippedPercent"] < 100
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "golden set: 10 sequences, 77 tokens"
    assert said[-2].startswith("4 of 4 batches, ")
    assert said[-1] == result
    assert main([], given_) == 0
    assert (tmp_path / "result").read_text() == result


def test_a_gate_is_compared_and_named(
    checkpoint: Path, given_: dict[str, str], tmp_path: Path
) -> None:
    stable, candidate = own_gate(checkpoint), another_gate(checkpoint, "v2")
    named = {"stable": stable.sha256, "candidate": candidate.sha256}
    with in_a_thread(GatedRouter.of(checkpoint, stable, candidate)) as router:
        given_ |= {"MOE_EVAL_ROUTERS": router.address, "MOE_EVAL_EXPERT": ""}
        given_ |= {f"MOE_EVAL_{name.upper()}": sha256 for name, sha256 in named.items()}
        assert main(["--gate", "gate"], given_) == 0
        alone = json.loads((tmp_path / "result").read_text())
        beside = f"e1={STABLE}:{CANDIDATE}"
        assert main(["--gate", "gate", "--beside", beside], given_) == 0
    fields = json.loads((tmp_path / "result").read_text())
    assert fields.pop("beside") == hashlib.sha256(beside.encode()).hexdigest()
    assert fields == alone
    golden = {"golden": given_["MOE_EVAL_GOLDEN_SHA256"]}
    compared = {name: fields[name] for name in ("golden", "gate", "stable", "candidate")}
    assert compared == {**golden, "gate": "gate", **named}
    assert "expert" not in fields
    assert 0 < fields["flippedPercent"] <= 100


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"MOE_EVAL_ROUTERS": ""}, "--routers (MOE_EVAL_ROUTERS) is missing"),
        ({"MOE_EVAL_EXPERT": ""}, "are '' and ''; one of them must say what is compared"),
        ({"MOE_EVAL_GATE": "gate"}, "are 'e1' and 'gate'; one of them must say what is compared"),
        ({"MOE_EVAL_STABLE": "v1"}, "--stable is 'v1'; it must be 64 lower-case"),
        (
            {"MOE_EVAL_BESIDE": f"e2={STABLE}:{CANDIDATE}"},
            "--beside (MOE_EVAL_BESIDE) goes with --gate (MOE_EVAL_GATE); it is given with",
        ),
        ({"MOE_EVAL_BESIDE": "e2=v1"}, "has 'e2=v1'; it must be EXPERT=SHA256:SHA256"),
        ({"MOE_EVAL_TRUNK_URI": "http://h/t"}, "--trunk is 'http://h/t'; it must be file:///"),
        ({"MOE_EVAL_TRUNK_URI": "file:///no"}, "/no/config.json cannot be read"),
        ({"MOE_EVAL_TRUNK_SHA256": "0" * 64}, f"it must be {'0' * 64}"),
        ({"MOE_EVAL_GOLDEN_URI": "file:///no"}, "/no cannot be read"),
        ({"MOE_EVAL_GOLDEN_SHA256": "0" * 64}, f"{'0' * 64} was asked for"),
        ({"MOE_EVAL_CANDIDATE": "cc" * 32}, "e1 has no version cccc"),
    ],
)
def test_an_error_is_a_result_too(
    given_: dict[str, str],
    router: FakeRouter,
    tmp_path: Path,
    changed: dict[str, str],
    sentence: str,
) -> None:
    if "MOE_EVAL_CANDIDATE" in changed:
        router.otherwise = refuse(grpc.StatusCode.INVALID_ARGUMENT, "e1 has no version cccc")
    assert main([], given_ | changed) == 1
    fields = json.loads((tmp_path / "result").read_text())
    assert [*fields] == ["error"]
    assert sentence in fields["error"]


def test_a_flag_wins_over_its_variable(given_: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main(["--result", str(other), "--golden-sha256", "x"], given_) == 1
    assert "--golden-sha256 is 'x'" in other.read_text()
    assert not (tmp_path / "result").exists()


def test_help_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "MOE_EVAL_TRUNK_SHA256" in said
    assert "/dev/termination-log" in said
    with pytest.raises(SystemExit, match="2"):
        main(["--unknown"])
