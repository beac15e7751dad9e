"""A client in the middle of a rollout, with real routers and real workers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from moe_artifacts.golden import Golden, Sequence, encode, sha256_of
from moe_client import OnRepin, Repinned, attach, evaluation, generate, load_trunk, use_local
from moe_core.rollout import Outcome, Rollout, WeightSince
from moe_core.rows import ExpertRow
from moe_core.table import Table
from tests.client.served import Served, serve
from tests.client.test_attachment import some_tokens
from tests.client.tiny import VOCABULARY, load_tiny, save_tiny

TRIED, FACTOR = "e1", 4.0
Running = tuple[Path, Served]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("rollout")
    checkpoint = save_tiny(directory / "checkpoint", torch.float32)
    tried = {TRIED: FACTOR}
    with serve(checkpoint, directory, dtype="Float32", workers=1, tried=tried) as served:
        yield checkpoint, served


def tell(served: Served, row: ExpertRow) -> None:
    """Write the table with this row for the expert on trial, and wait for the router."""
    table = served.table.table
    experts = tuple(row if other.expert_id == TRIED else other for other in table.experts)
    written = served.table.write(replace(table, experts=experts))
    for router in served.routers:
        router.wait_for_epoch(written.epoch)


def row_of(table: Table) -> ExpertRow:
    return next(row for row in table.experts if row.expert_id == TRIED)


def on_trial(served: Served, percent: int) -> None:
    """Begin a rollout at this weight."""
    table, target = served.table.table, served.seconds[TRIED]
    began = (WeightSince(table.epoch + 1, percent),)
    rollout = Rollout(
        table.epoch + 1, target, 1, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "", "salt", began
    )
    tell(served, replace(row_of(table), candidate=target, rollout=rollout, revoked=()))


def take_back(served: Served) -> None:
    row, target = row_of(served.table.table), served.seconds[TRIED]
    assert row.rollout is not None
    epoch = served.table.table.epoch + 1
    rollout = replace(
        row.rollout,
        outcome=Outcome.ROLLED_BACK,
        weights=(*row.rollout.weights, WeightSince(epoch, 0)),
    )
    tell(served, replace(row, candidate=None, revoked=(target.sha256,), rollout=rollout))


def reference(checkpoint: Path, *, candidate: bool = False) -> Any:
    """Return the model in one process, all stable or all on the candidate."""
    model = load_tiny(checkpoint)
    if candidate:
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.experts.down_proj[int(TRIED[1:])] *= FACTOR
    use_local(model)
    return model


@torch.no_grad()
def greedy(model: Any, tokens: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Prefill `tokens`, take the likeliest `count` times; return the logits of each."""
    seen, cache, fed = [], None, tokens
    for _ in range(count):
        out = model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        seen.append(out.logits[:, -1])
        fed = out.logits[:, -1].argmax(dim=-1)[:, None]
    return seen


class AtStep:
    """A logits processor that notes all logits, and does something once after some of them."""

    def __init__(self, step: int, act: Any) -> None:
        self.logits: list[torch.Tensor] = []
        self._step, self._act = step, act

    def __call__(self, tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        self.logits.append(logits)
        if len(self.logits) == self._step:
            self._act()
        return logits


@pytest.mark.parametrize("batch", [1, 3])
def test_what_was_prefilled_again_has_the_bits_of_a_stable_only_run(
    running: Running, batch: int
) -> None:
    checkpoint, served = running
    on_trial(served, 100)
    model, prompt = load_trunk(checkpoint), some_tokens(batch)
    noted = AtStep(4, lambda: take_back(served))
    with attach(model, served.addresses) as attachment:
        made = generate(model, attachment, prompt, max_new_tokens=10, process=noted)
    assert made.prefilled_at == (11, 15)
    before = greedy(reference(checkpoint, candidate=True), prompt, 4)
    after = greedy(reference(checkpoint), made.tokens[:, :15], 6)
    assert len(noted.logits) == 10
    for ours, theirs in zip(noted.logits, [*before, *after], strict=True):
        assert torch.equal(ours, theirs)
    chosen = torch.stack([logits.argmax(dim=-1) for logits in noted.logits], dim=1)
    assert torch.equal(made.tokens[:, 11:], chosen)


def test_a_caller_may_go_on_or_end_instead(running: Running) -> None:
    checkpoint, served = running
    model = load_trunk(checkpoint)
    on_trial(served, 100)
    with attach(model, served.addresses, on_repin=OnRepin.CONTINUE, session="s") as attachment:
        noted = AtStep(2, lambda: take_back(served))
        made = generate(
            model, attachment, some_tokens(1), max_new_tokens=5, process=noted, session="s"
        )
        assert made.prefilled_at == (11,)
        assert attachment.session("s").repinned_experts == {TRIED}
    on_trial(served, 100)
    with attach(model, served.addresses, on_repin=OnRepin.ABORT) as attachment:
        noted = AtStep(2, lambda: take_back(served))
        with pytest.raises(Repinned, match=f"lost its version of {TRIED}") as caught:
            generate(model, attachment, some_tokens(1), max_new_tokens=5, process=noted)
        assert [*caught.value.experts.values()] == [(TRIED,)]


def test_generate_of_transformers_ends_and_can_be_called_again(running: Running) -> None:
    checkpoint, served = running
    model = load_trunk(checkpoint)
    on_trial(served, 100)

    def take_back_once(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if tokens.shape[1] == 13:
            take_back(served)
        return logits

    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    with attach(model, served.addresses):
        with pytest.raises(Repinned, match="prefill all tokens again"):
            model.generate(some_tokens(1), logits_processor=[take_back_once], **options)
        again = model.generate(some_tokens(1), **options)
    assert torch.equal(again, reference(checkpoint).generate(some_tokens(1), **options))


def test_a_table_that_is_gone_begins_a_new_session(running: Running) -> None:
    checkpoint, served = running
    model = load_trunk(checkpoint)
    uid = served.table.table.uid

    def make_anew() -> None:
        table = served.table.table
        written = served.table.write(replace(table, uid="0" + uid[1:]))
        for router in served.routers:
            router.wait_for_epoch(written.epoch)

    noted = AtStep(3, make_anew)
    with attach(model, served.addresses) as attachment:
        made = generate(
            model, attachment, some_tokens(1), max_new_tokens=6, process=noted, session="kept"
        )
        assert attachment.session("kept").epoch == served.table.table.epoch
    assert made.prefilled_at == (11, 14)
    after = greedy(reference(checkpoint), made.tokens[:, :14], 3)
    for ours, theirs in zip(noted.logits[3:], after, strict=True):
        assert torch.equal(ours, theirs)


def test_an_evaluation_finds_what_the_candidate_does(running: Running, tmp_path: Path) -> None:
    checkpoint, served = running
    on_trial(served, 0)
    lengths = (30, 12, 30, 2, 30, 12, 30, 12)
    tokens = [some_tokens(1, n, seed)[0].numpy() for seed, n in enumerate(lengths)]
    sequences = tuple(Sequence("ab"[n % 2], t.astype(np.int32)) for n, t in enumerate(tokens))
    golden = Golden(VOCABULARY, ("a", "b"), sequences)
    (tmp_path / "golden").write_bytes(encode(golden))
    stable, candidate = row_of(served.table.table).stable, served.seconds[TRIED]
    assert stable is not None
    environ = {
        "MOE_EVAL_ROUTERS": ",".join(served.addresses),
        "MOE_EVAL_MIXTURE": served.index.mixture,
        "MOE_EVAL_EXPERT": TRIED,
        "MOE_EVAL_STABLE": stable.sha256,
        "MOE_EVAL_CANDIDATE": candidate.sha256,
        "MOE_EVAL_TRUNK_URI": served.index.trunk_uri,
        "MOE_EVAL_TRUNK_SHA256": served.index.trunk_sha256,
        "MOE_EVAL_GOLDEN_URI": (tmp_path / "golden").as_uri(),
        "MOE_EVAL_GOLDEN_SHA256": sha256_of(golden),
        "MOE_EVAL_RESULT": str(tmp_path / "result"),
    }
    assert evaluation.main([], environ) == 0
    fields = json.loads((tmp_path / "result").read_text())
    ours = (fields["all"]["stable"], fields["all"]["candidate"])
    theirs = (
        mean_loss(reference(checkpoint), golden),
        mean_loss(reference(checkpoint, candidate=True), golden),
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert theirs[0] != pytest.approx(theirs[1], rel=1e-2)
    assert fields["all"]["mean"] == pytest.approx(theirs[1] - theirs[0], abs=1e-5)
    assert {name: part["n"] for name, part in fields["slices"].items()} == {"a": 4, "b": 4}
    assert fields["flippedPercent"] > 0
    environ["MOE_EVAL_CANDIDATE"] = "0" * 64
    assert evaluation.main([], environ) == 1
    assert "0" * 10 in json.loads((tmp_path / "result").read_text())["error"]


@torch.no_grad()
def mean_loss(model: Any, golden: Golden) -> float:
    means = []
    for sequence in golden.sequences:
        ids = torch.from_numpy(sequence.tokens.astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        means.append(float(functional.cross_entropy(logits, ids[0, 1:])) / math.log(2))
    return sum(means) / len(means)
