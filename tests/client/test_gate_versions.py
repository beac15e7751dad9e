"""Sessions on different versions of a gate: bits, who is asked when, what a change ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig

from moe_client import (
    InvalidRequest,
    Mismatch,
    NotFound,
    OnRepin,
    Repinned,
    attach,
    generate,
    load_trunk,
)
from moe_client.errors import MalformedAnswer
from moe_client.router_module import copy_router
from tests.client.gated import GatedRouter, Variant, another_gate, model_with, own_gate
from tests.client.test_attachment import DTYPES, asked, logits, some_tokens
from tests.client.test_rollout_processes import AtStep, greedy
from tests.client.tiny import EXPERTS, save_tiny
from tests.fakes.router import Exchange, in_a_thread

FEWER = ("e3", "e1", "e0")
GATES = [
    pytest.param(EXPERTS, 2, id="other weights"),
    pytest.param(FEWER, 2, id="another list of experts"),
    pytest.param(FEWER, 1, id="fewer experts for each row"),
    pytest.param(EXPERTS, 3, id="more experts for each row"),
]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.float32)


@pytest.fixture
def gates(float32: Path) -> tuple[Variant, Variant]:
    return own_gate(float32), another_gate(float32, "v2", FEWER, 1)


@pytest.fixture
def router(float32: Path, gates: tuple[Variant, Variant]) -> Iterator[GatedRouter]:
    """Serves both gates; sessions of which nothing is said are on the first."""
    with in_a_thread(GatedRouter.of(float32, *gates)) as fake:
        assert isinstance(fake, GatedRouter)
        yield fake


# -- bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("experts", "top_k"), GATES)
def test_each_row_of_a_mixed_batch_has_the_bits_of_its_version_alone(
    checkpoint: Path, experts: tuple[str, ...], top_k: int
) -> None:
    stable, candidate = own_gate(checkpoint), another_gate(checkpoint, "v2", experts, top_k)
    router = GatedRouter.of(checkpoint, stable, candidate)
    router.pins = {"b": candidate.sha256, "c": candidate.sha256}
    tokens, mask = some_tokens(4), torch.ones(4, 11, dtype=torch.long)
    mask[0, :3], mask[2, :5] = 0, 0
    models = [model_with(checkpoint, gate) for gate in router.variants]
    alone = [logits(model, tokens, attention_mask=mask) for model in models]
    model = load_trunk(checkpoint)
    with in_a_thread(router), attach(model, router.address, session=list("abcd")) as attachment:
        mixed = logits(model, tokens, attention_mask=mask)
        assert attachment.counters.failed == 0
    assert router.begun == [list("abcd")]
    for row, version in enumerate((0, 1, 1, 0)):
        real = mask[row].bool()
        assert torch.equal(mixed[row][real], alone[version][row][real])
        assert not torch.equal(mixed[row][real], alone[1 - version][row][real])


def test_the_models_own_gate_is_not_touched(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    model, reference = load_trunk(float32), model_with(float32, gates[0])
    routers = [layer.mlp.gate for layer in model.model.layers]
    weights = [r.weight for r in routers]
    with attach(model, router.address, session="a"):
        router.pins = {"a": gates[1].sha256}
        logits(model, some_tokens(1))
        with torch.no_grad():
            own = model(input_ids=some_tokens(2), output_router_logits=True)
    assert [r.weight for r in routers] == weights
    assert {(r.top_k, r.num_experts, "forward" in r.__dict__) for r in routers} == {(2, 4, False)}
    assert torch.equal(own.logits, logits(reference, some_tokens(2)))
    assert all(layer.shape == (22, 4) for layer in own.router_logits)


# -- who is asked --------------------------------------------------------------------------------


def test_nobody_is_asked_while_there_is_one_version(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates
    router.tell(stable)
    model = load_trunk(float32)
    expected = [logits(model_with(float32, gate), some_tokens(1)) for gate in gates]
    with attach(model, router.address) as attachment:
        logits(model, some_tokens(2))
        assert router.begun == []
        router.tell(stable, candidate)
        router.pins = {"s": candidate.sha256}
        with attachment.sessions("s"):
            assert torch.equal(logits(model, some_tokens(1)), expected[1])
        assert router.begun == [["s"]]
        assert attachment.counters.failed == 0
        assert attachment.counters.repins == 0
        with attachment.sessions("t"):
            assert torch.equal(logits(model, some_tokens(1)), expected[0])
        assert router.begun == [["s"], ["t"]]
        router.tell(stable)
        with attachment.sessions("u"):
            logits(model, some_tokens(1))
        with attachment.sessions("v"):
            logits(model, some_tokens(1))
        assert router.begun == [["s"], ["t"], ["u"]]


def test_a_model_whose_gate_was_retired_attaches(float32: Path, router: GatedRouter) -> None:
    now = another_gate(float32, "v3")
    router.tell(now)
    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        ours = logits(model, some_tokens())
        assert attachment.counters.failed == 0
    assert torch.equal(ours, logits(model_with(float32, now), some_tokens()))
    assert {r.gate_sha256 for r in asked(router)} == {now.sha256}


def test_a_forged_artifact_is_refused(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates
    forged = another_gate(float32, "evil", candidate.experts, candidate.top_k)
    router.gates[candidate.sha256] = forged.content
    router.pins = {"s": candidate.sha256}
    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        sentence = f"sha256 {forged.sha256}; {candidate.sha256} was asked for"
        with attachment.sessions("s"), pytest.raises(MalformedAnswer, match=sentence):
            logits(model, some_tokens(1))
        assert torch.equal(
            logits(model, some_tokens(1)), logits(model_with(float32, stable), some_tokens(1))
        )


def test_an_artifact_that_is_not_what_the_mixture_says(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    router.description.gates[0].others[0].top_k = 2
    router.pins = {"s": gates[1].sha256}
    model = load_trunk(float32)
    with (
        attach(model, router.address, session="s"),
        pytest.raises(Mismatch, match="gate gate version v2: the artifact's topK is 1; mixture"),
    ):
        logits(model, some_tokens(1))


def test_a_router_module_that_learned_more_cannot_be_copied() -> None:
    auto: Any = AutoModelForCausalLM
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_local_experts": 4,
        "vocab_size": 64,
    }
    model = auto.from_config(GptOssConfig(**sizes))
    router = model.model.layers[0].mlp.router
    with pytest.raises(InvalidRequest, match=r"layer 0: GptOssTopKRouter cannot be copied .* bias"):
        copy_router(router, 0, {"weight": router.weight}, 2)


# -- changes in the middle -----------------------------------------------------------------------


def changing(router: GatedRouter, *now: Variant) -> AtStep:
    return AtStep(4, lambda: router.tell(*now))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_gate_taken_back_is_generated_through(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant], batch: int
) -> None:
    stable, candidate = gates
    names = [f"s{n}" for n in range(batch)]
    router.pins = dict.fromkeys(names, candidate.sha256)
    model, prompt, noted = load_trunk(float32), some_tokens(batch), changing(router, stable)
    with attach(model, router.address) as attachment:
        made = generate(model, attachment, prompt, max_new_tokens=10, process=noted, session=names)
        assert attachment.counters.repins == batch
    assert made.prefilled_at == (11, 15)
    before = greedy(model_with(float32, candidate), prompt, 4)
    after = greedy(model_with(float32, stable), made.tokens[:, :15], 6)
    assert len(noted.logits) == 10
    for ours, theirs in zip(noted.logits, [*before, *after], strict=True):
        assert torch.equal(ours, theirs)


def test_a_promotion_whose_previous_gate_is_gone_is_generated_through(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates
    router.tell(stable)
    model, prompt, noted = load_trunk(float32), some_tokens(1), changing(router, candidate)
    with attach(model, router.address) as attachment:
        made = generate(model, attachment, prompt, max_new_tokens=10, process=noted)
    assert made.prefilled_at == (11, 15)
    after = greedy(model_with(float32, candidate), made.tokens[:, :15], 6)
    for ours, theirs in zip(noted.logits[4:], after, strict=True):
        assert torch.equal(ours, theirs)


def test_a_caller_may_go_on_or_end_instead(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates
    model = load_trunk(float32)
    for wish, expected in ((OnRepin.CONTINUE, (11,)), (OnRepin.ABORT, None)):
        router.tell(stable, candidate)
        router.pins = {"s": candidate.sha256}
        noted = changing(router, stable)
        with attach(model, router.address, on_repin=wish) as attachment:
            again: dict[str, Any] = {"max_new_tokens": 6, "process": noted, "session": "s"}
            if expected is not None:
                made = generate(model, attachment, some_tokens(1), **again)
                assert made.prefilled_at == expected
                continue
            with pytest.raises(Repinned, match="session s lost its version of gate") as caught:
                generate(model, attachment, some_tokens(1), **again)
            assert caught.value.gates == {"s": ("gate",)}


def test_a_gate_taken_back_within_a_call_ends_it_but_not_the_text(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates

    async def answer_and_take_back(exchange: Exchange) -> None:
        await router.act(exchange)
        router.tell(stable)

    model, expected = load_trunk(float32), logits(model_with(float32, stable), some_tokens(1))
    with attach(model, router.address, session="s") as attachment:
        router.pins, router.script = {"s": candidate.sha256}, [answer_and_take_back]
        with pytest.raises(Repinned, match="session s lost its version of gate"):
            logits(model, some_tokens(1))
        assert torch.equal(logits(model, some_tokens(1)), expected)
        attachment.forget("s")
        router.tell(stable, candidate)
        router.pins["t"] = candidate.sha256
        with attachment.sessions("t"):
            logits(model, some_tokens(1))
        router.script = [answer_and_take_back]
        made = generate(model, attachment, some_tokens(1), max_new_tokens=1, session="s")
    assert made.prefilled_at == (11, 11)
    assert torch.equal(made.tokens[:, -1], expected[:, -1].argmax(dim=-1))


def test_a_refusal_by_a_table_that_is_history_is_repeated(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates
    router.tell(stable)

    async def refuse_and_take_back(exchange: Exchange) -> None:
        router.tell(stable, candidate)
        router.refuse(exchange, "gate_sha256 is of another version")
        router.tell(stable)

    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        router.script = [refuse_and_take_back]
        ours = logits(model, some_tokens(1))
        assert attachment.counters.failed == 0
    assert torch.equal(ours, logits(model_with(float32, stable), some_tokens(1)))


def test_outcomes_are_reported_of_sessions_on_either_gate(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    router.pins = {"b": gates[1].sha256}
    model = load_trunk(float32)
    with attach(model, router.address, session=["a", "b"], report_outcomes=True):
        logits(model, some_tokens(2))
    told = {o.session: o for report in router.reports for o in report.outcomes}
    assert {name: (o.start_token, o.tokens) for name, o in told.items()} == {
        "a": (b"begun", 10),
        "b": (b"begun", 10),
    }
    assert told["a"].loss_bits != told["b"].loss_bits


def test_another_trunk_is_told_and_names_both(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    model = load_trunk(float32)

    async def refuse_trunk(exchange: Exchange) -> None:
        router.refuse(exchange, "trunk_sha256 is aa; the experts belong to the trunk bb")

    with attach(model, router.address) as attachment:
        router.otherwise = refuse_trunk
        with pytest.raises(Mismatch, match=r"trunk_sha256 is aa; .* trunk bb"):
            generate(model, attachment, some_tokens(1), max_new_tokens=3)
        assert attachment.counters.failed == 1


def test_versions_of_a_gate_are_forced_inside_a_block_only(
    float32: Path, router: GatedRouter, gates: tuple[Variant, Variant]
) -> None:
    stable, candidate = gates
    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        with attachment.forced(gates={"gate": candidate.sha256}):
            forced = logits(model, some_tokens())
        logits(model, some_tokens())
        with (
            attachment.forced(gates={"gate": "ab" * 32}),
            pytest.raises(NotFound, match=f"gate gate has no version {'ab' * 32}; mixture tiny"),
        ):
            logits(model, some_tokens())
    assert torch.equal(forced, logits(model_with(float32, candidate), some_tokens()))
    sent = [(r.gate_sha256, {s.gate_forced for s in r.sequences}) for r in asked(router)]
    assert sent == [(candidate.sha256, {True})] * 2 + [(stable.sha256, {False})] * 2
