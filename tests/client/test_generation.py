"""Generating with moe_client's own loop: transformers' tokens, and what a re-pin makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from moe_client import (
    InvalidRequest,
    Mismatch,
    OnRepin,
    Repinned,
    Rows,
    Sequence,
    Unavailable,
    attach,
    generate,
    load_trunk,
    use_local,
)
from moe_client.messages import Answer, Outcome
from moe_client.repin import objection
from tests.client.test_attachment import asked, serving, some_tokens
from tests.client.tiny import Served, load_tiny, save_tiny
from tests.fakes.router import Exchange, FakeRouter, in_a_thread, refuse


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.float32)


@pytest.fixture
def router(checkpoint: Path) -> Iterator[FakeRouter]:
    with in_a_thread(serving(checkpoint)) as fake:
        yield fake


# -- the rule ------------------------------------------------------------------------------------

ROWS = Rows(0, np.zeros((2, 4), np.float32), (Sequence("a", 1), Sequence("b", 1)))


@pytest.mark.parametrize(
    ("wish", "lost", "began_before", "ends"),
    [
        pytest.param(OnRepin.REPREFILL, ("e1",), True, True, id="the cache is worth nothing"),
        pytest.param(OnRepin.ABORT, ("e1",), True, True, id="the caller wants to know"),
        pytest.param(OnRepin.CONTINUE, ("e1",), True, False, id="the caller wants to go on"),
        pytest.param(OnRepin.REPREFILL, ("e1",), False, False, id="nothing was computed before"),
        pytest.param(OnRepin.REPREFILL, (), True, False, id="nobody was re-pinned"),
    ],
)
def test_what_a_re_pin_ends(
    wish: OnRepin, lost: tuple[str, ...], began_before: bool, ends: bool
) -> None:
    outcomes = (Outcome(b"t", 0, False), Outcome(b"t", 0, False, lost))
    answer = Answer(ROWS.hidden, outcomes, epoch=9, router_us=0)
    error = objection(wish, ROWS, answer, began_before=began_before)
    assert (error is not None) is ends
    if error is not None:
        assert error.experts == {"b": ("e1",)}
        assert "session b lost its version of e1" in str(error)
        assert str(error).startswith("ABORTED")


# -- the loop ------------------------------------------------------------------------------------


def test_the_tokens_are_those_of_transformers(checkpoint: Path, router: FakeRouter) -> None:
    model, reference = load_trunk(checkpoint), load_tiny(checkpoint)
    use_local(reference)
    prompt = some_tokens(3)
    with attach(model, router.address) as attachment:
        made = generate(model, attachment, prompt, max_new_tokens=8)
        assert len(attachment.last) == 3
    assert made.prefilled_at == (11,)
    theirs = reference.generate(prompt, max_new_tokens=8, do_sample=False)
    assert torch.equal(made.tokens, theirs)
    assert len({s.session for r in asked(router) for s in r.sequences}) == 3


def test_a_row_that_has_ended_is_filled_up(checkpoint: Path, router: FakeRouter) -> None:
    model, prompt = load_trunk(checkpoint), some_tokens(2)

    def choose(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        step = tokens.shape[1] - 11
        wanted = [9 if step == 1 else 5, 9 if step == 3 else 6]
        return torch.nn.functional.one_hot(torch.tensor(wanted), 64).float()

    with attach(model, router.address) as attachment:
        made = generate(model, attachment, prompt, max_new_tokens=8, eos_token_id=9, process=choose)
    assert made.tokens[:, 11:].tolist() == [[5, 9, 9, 9], [6, 6, 6, 9]]


def test_a_temperature_draws_the_same_for_the_same_seed(
    checkpoint: Path, router: FakeRouter
) -> None:
    model = load_trunk(checkpoint)
    with attach(model, router.address) as attachment:
        drawn = [
            generate(
                model,
                attachment,
                some_tokens(1),
                temperature=2.0,
                generator=torch.Generator().manual_seed(seed),
            ).tokens.tolist()
            for seed in (1, 1, 2)
        ]
        with pytest.raises(InvalidRequest, match=r"input_ids has shape \[11\]"):
            generate(model, attachment, some_tokens(1)[0])
    assert drawn[0] == drawn[1] != drawn[2]


def repinning(checkpoint: Path) -> Any:
    """Answer rightly, and tell of a re-pin."""
    served = Served.of(load_tiny(checkpoint))

    async def act(exchange: Exchange) -> None:
        response = exchange.echo()
        response.hidden = served.answer(exchange.request)  # type: ignore[arg-type]
        response.sequences[0].repinned_experts.append("e1")
        exchange.answer(response)

    return act


def test_a_re_pin_prefills_again_in_the_same_session(checkpoint: Path, router: FakeRouter) -> None:
    model = load_trunk(checkpoint)
    usual = [router.otherwise] * 2
    router.script = [*usual, *usual, router.otherwise, repinning(checkpoint)]
    with attach(model, router.address) as attachment:
        made = generate(model, attachment, some_tokens(1), max_new_tokens=4, session="s")
        assert attachment.counters.repins == 1
    assert made.prefilled_at == (11, 13)
    rows = [[s.rows for s in r.sequences] for r in asked(router)]
    assert rows == [[11]] * 2 + [[1]] * 4 + [[13]] * 2 + [[1]] * 2
    assert {s.session for r in asked(router) for s in r.sequences} == {"s"}
    assert {s.start_token for r in asked(router)[1:] for s in r.sequences} == {b"1:uid:7"}


def by_table(checkpoint: Path, epoch: int, *lost: str) -> Any:
    """Answer rightly by the table of an epoch, and tell of these re-pins."""
    served = Served.of(load_tiny(checkpoint))

    async def act(exchange: Exchange) -> None:
        response = exchange.echo()
        response.hidden, response.epoch = served.answer(exchange.request), epoch  # type: ignore[arg-type]
        response.sequences[0].repinned_experts.extend(lost)
        exchange.answer(response)

    return act


@pytest.mark.parametrize(
    ("wish", "epoch", "ends"),
    [
        pytest.param(OnRepin.REPREFILL, 8, False, id="the same table"),
        pytest.param(OnRepin.REPREFILL, 9, False, id="a newer one"),
        pytest.param("Reprefill", 7, True, id="an older one"),
        pytest.param(OnRepin.CONTINUE, 7, False, id="which its caller does not mind"),
    ],
)
def test_a_re_pin_in_the_first_layer_ends_a_call_that_an_older_table_answers_then(
    checkpoint: Path, router: FakeRouter, wish: OnRepin, epoch: int, ends: bool
) -> None:
    model = load_trunk(checkpoint)
    router.script = [by_table(checkpoint, 8, "e1"), by_table(checkpoint, epoch)]
    with attach(model, router.address, on_repin=wish), torch.no_grad():
        if ends:
            with pytest.raises(Repinned, match="lost its version of e1") as raised:
                model(input_ids=some_tokens(1))
            assert [*raised.value.experts.values()] == [("e1",)]
        else:
            model(input_ids=some_tokens(1))
        model(input_ids=some_tokens(1))  # a call of its own: nothing was told in it


def test_a_table_that_never_rests_is_given_up(checkpoint: Path, router: FakeRouter) -> None:
    model = load_trunk(checkpoint)
    router.script = [router.otherwise] * 2
    router.otherwise = repinning(checkpoint)
    with attach(model, router.address) as attachment:
        with pytest.raises(Unavailable, match="the table changed under 8 prefills"):
            generate(model, attachment, some_tokens(1), max_new_tokens=4)
        with pytest.raises(Repinned):
            model.generate(some_tokens(1), max_new_tokens=4)


def test_a_session_whose_table_is_gone_begins_anew_but_a_stranger_is_told(
    checkpoint: Path, router: FakeRouter
) -> None:
    model = load_trunk(checkpoint)
    gone = refuse(grpc.StatusCode.FAILED_PRECONDITION, "begin a new session")
    router.script = [router.otherwise] * 2 + [gone]
    with attach(model, router.address) as attachment:
        made = generate(model, attachment, some_tokens(1), max_new_tokens=3, session="s")
        assert made.prefilled_at == (11, 12)
        assert asked(router)[3].sequences[0].start_token == b""
        router.script = [gone]
        with pytest.raises(Mismatch, match="begin a new session"):
            generate(model, attachment, some_tokens(1), max_new_tokens=3)


def test_versions_are_forced_inside_a_block_only(checkpoint: Path, router: FakeRouter) -> None:
    model, digest = load_trunk(checkpoint), "ab" * 32
    layers: list[int] = []
    with attach(model, router.address, forced={"e2": "cd" * 32}) as attachment, torch.no_grad():
        model(input_ids=some_tokens(2))
        with (
            attachment.forced({"e1": digest, "e0": digest}),
            attachment.choices(lambda layer, index: layers.append(layer)),
        ):
            model(input_ids=some_tokens(2))
        with pytest.raises(InvalidRequest, match=r"forced\['e1'\] is 'v2'; it must be"):
            attachment.forced({"e1": "v2"}).__enter__()
    sent = [
        [[(f.expert_id, f.sha256) for f in s.forced] for s in r.sequences] for r in asked(router)
    ]
    assert sent[:2] == [[[("e2", "cd" * 32)]] * 2] * 2
    assert sent[2:] == [[[("e0", digest), ("e1", digest)]] * 2] * 2
    assert layers == [0, 1]
    with pytest.raises(InvalidRequest, match="must be the version's sha256"):
        attach(model, router.address, forced={"e1": ""})
