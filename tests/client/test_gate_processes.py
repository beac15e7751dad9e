"""A client whose gate changes, with real routers and real workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moe_artifacts.golden import Golden, Sequence, encode, sha256_of
from moe_client import attach, evaluation, generate, load_trunk
from moe_client.recorder import record
from moe_client.steady import SteadyLoad
from moe_core.policy import Policy
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import GateRow, GateVariant
from tests.client.gated import Variant, another_gate, model_with, own_gate
from tests.client.served import Served, serve
from tests.client.test_attachment import logits, some_tokens
from tests.client.test_rollout_processes import AtStep, greedy, mean_loss
from tests.client.tiny import VOCABULARY, save_tiny

Running = tuple[Path, Served, Variant, Variant]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Served]]:
    directory = tmp_path_factory.mktemp("gates")
    checkpoint = save_tiny(directory / "checkpoint", torch.float32)
    with serve(checkpoint, directory, dtype="Float32", workers=1, routers=2) as served:
        yield checkpoint, served


@pytest.fixture
def running(started: tuple[Path, Served]) -> Running:
    """The table with the checkpoint's own gate only; another one knows other experts."""
    checkpoint, served = started
    own = own_gate(checkpoint)
    stable = to_variant(checkpoint, own)
    tell(served, GateRow("gate", (0, 1), stable))
    return checkpoint, served, own, another_gate(checkpoint, "v2", ("e3", "e1", "e0"), 2)


def to_variant(checkpoint: Path, gate: Variant) -> GateVariant:
    """Write the artifact, and return what a table says of it."""
    path = checkpoint / f"{gate.version}.gate"
    path.write_bytes(gate.content)
    uri = path.resolve().as_uri()
    return GateVariant(gate.version, gate.sha256, uri, gate.experts, Policy(gate.top_k))


def tell(served: Served, row: GateRow) -> None:
    written = served.table.write(replace(served.table.table, gates=(row,)))
    for router in served.routers:
        router.wait_for_epoch(written.epoch)


def row_of(served: Served) -> GateRow:
    (row,) = served.table.table.gates
    return row


def on_trial(checkpoint: Path, served: Served, gate: Variant, percent: int) -> None:
    """Begin a rollout of this gate at this weight."""
    epoch, candidate = served.table.table.epoch + 1, to_variant(checkpoint, gate)
    target = Version(candidate.version, candidate.sha256, candidate.uri)
    weights = (WeightSince(epoch, percent),)
    began = "2026-01-01T00:00:00Z"
    rollout = Rollout(epoch, target, 1, began, Outcome.PROGRESSING, "", "salt", weights)
    tell(served, replace(row_of(served), candidate=candidate, rollout=rollout, revoked=()))


def take_back(served: Served) -> None:
    row, epoch = row_of(served), served.table.table.epoch + 1
    assert row.candidate is not None
    assert row.rollout is not None
    weights = (*row.rollout.weights, WeightSince(epoch, 0))
    rollout = replace(row.rollout, outcome=Outcome.ROLLED_BACK, weights=weights)
    revoked = (row.candidate.sha256,)
    tell(served, replace(row, candidate=None, revoked=revoked, rollout=rollout))


def promote(served: Served) -> None:
    """Promote, and keep the gate before for nobody."""
    row, epoch = row_of(served), served.table.table.epoch + 1
    assert row.candidate is not None
    assert row.rollout is not None
    weights = (*row.rollout.weights, WeightSince(epoch, 100))
    rollout = replace(row.rollout, outcome=Outcome.PROMOTED, weights=weights)
    tell(served, replace(row, stable=row.candidate, candidate=None, rollout=rollout))


def test_a_promotion_is_generated_through_and_what_follows_uses_the_new_gate(
    running: Running,
) -> None:
    checkpoint, served, own, other = running
    on_trial(checkpoint, served, other, 0)
    model, prompt = load_trunk(checkpoint), some_tokens(2)
    noted = AtStep(4, lambda: promote(served))
    with attach(model, served.addresses) as attachment:
        made = generate(model, attachment, prompt, max_new_tokens=8, process=noted)
        after = logits(model, prompt)
    assert made.prefilled_at == (11, 15)
    expected = greedy(model_with(checkpoint, own), prompt, 4)
    expected += greedy(model_with(checkpoint, other), made.tokens[:, :15], 4)
    for ours, theirs in zip(noted.logits, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(after, logits(model_with(checkpoint, other), prompt))
    with attach(load_trunk(checkpoint), served.addresses) as attachment:  # its gate was retired
        assert [gate.sha256 for gate in attachment.mixture.gates] == [other.sha256]


def test_an_evaluation_compares_two_gates(running: Running, tmp_path: Path) -> None:
    checkpoint, served, own, other = running
    on_trial(checkpoint, served, other, 0)
    tokens = [some_tokens(1, 12 + seed % 2, seed)[0].numpy() for seed in range(8)]
    sequences = tuple(Sequence("a", t.astype(np.int32)) for t in tokens)
    golden = Golden(VOCABULARY, ("a",), sequences)
    (tmp_path / "golden").write_bytes(encode(golden))
    environ = {
        "MOE_EVAL_ROUTERS": ",".join(served.addresses),
        "MOE_EVAL_GATE": "gate",
        "MOE_EVAL_STABLE": own.sha256,
        "MOE_EVAL_CANDIDATE": other.sha256,
        "MOE_EVAL_TRUNK_URI": served.index.trunk_uri,
        "MOE_EVAL_TRUNK_SHA256": served.index.trunk_sha256,
        "MOE_EVAL_GOLDEN_URI": (tmp_path / "golden").as_uri(),
        "MOE_EVAL_GOLDEN_SHA256": sha256_of(golden),
        "MOE_EVAL_RESULT": str(tmp_path / "result"),
    }
    assert evaluation.main([], environ) == 0
    fields = json.loads((tmp_path / "result").read_text())
    theirs = [mean_loss(model_with(checkpoint, gate), golden) for gate in (own, other)]
    assert (fields["all"]["stable"], fields["all"]["candidate"]) == pytest.approx(theirs, abs=1e-5)
    assert theirs[0] != pytest.approx(theirs[1], rel=1e-2)
    assert fields["gate"] == "gate"
    assert 0 < fields["flippedPercent"] <= 100


def test_load_repeats_what_one_gate_chose_and_fails_under_no_canary_of_another(
    running: Running,
) -> None:
    checkpoint, served, own, other = running
    recording = record(model_with(checkpoint, own), [some_tokens(1, 6)[0]])
    on_trial(checkpoint, served, other, 50)
    with SteadyLoad(served.addresses, recording, rows=6) as load:
        while load.report().passed_over < 4 or load.requests < 20:
            time.sleep(0.05)
        take_back(served)
        before = load.requests
        while load.requests < before + 20:
            time.sleep(0.05)
        seen = load.report()
    assert (seen.failed, seen.different) == (0, 0), seen.failures


def test_a_canary_reaches_its_sessions_and_is_taken_back_under_them(running: Running) -> None:
    checkpoint, served, own, other = running
    model, prompt = load_trunk(checkpoint), some_tokens(8)
    names = [f"session-{number}" for number in range(8)]
    alone = [greedy(model_with(checkpoint, gate), prompt, 1)[0] for gate in (own, other)]
    with attach(model, served.addresses) as attachment:
        logits(model, prompt)
        on_trial(checkpoint, served, other, 50)
        noted = AtStep(1, lambda: take_back(served))
        made = generate(model, attachment, prompt, max_new_tokens=5, process=noted, session=names)
        moved = {name for name in names if attachment.session(name).repinned_gates}
        assert all(attachment.session(name).gates["gate"] == own.sha256 for name in names)
    assert made.prefilled_at == (11, 12)
    for name, *rows in zip(names, noted.logits[0], *alone, strict=True):
        assert torch.equal(rows[0], rows[2] if name in moved else rows[1])
    assert 0 < len(moved) < len(names)
    after = greedy(model_with(checkpoint, own), made.tokens[:, :12], 4)
    for ours, theirs in zip(noted.logits[1:], after, strict=True):
        assert torch.equal(ours, theirs)
