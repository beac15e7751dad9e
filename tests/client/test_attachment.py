"""A transformers model with its experts elsewhere: bits, sessions, padding, refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

import moe_client
from moe_client import (
    InvalidRequest,
    Mismatch,
    NotFound,
    Unavailable,
    attach,
    load_trunk,
    use_local,
)
from moeops.v1 import router_pb2, types_pb2
from tests.client.tiny import (
    VOCABULARY,
    Served,
    computed_by,
    describe,
    load_tiny,
    save_tiny,
)
from tests.fakes.router import Exchange, FakeRouter, in_a_thread, refuse

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.float32)


def serving(directory: Path) -> FakeRouter:
    action = computed_by(Served.of(load_tiny(directory)))
    return FakeRouter(describe(directory), otherwise=action)


@pytest.fixture
def router(float32: Path) -> Iterator[FakeRouter]:
    with in_a_thread(serving(float32)) as fake:
        yield fake


def some_tokens(batch: int = 2, length: int = 11, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (batch, length), generator=generator)


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor, **more: Any) -> torch.Tensor:
    answer: torch.Tensor = model(input_ids=tokens, **more).logits
    return answer


def asked(router: FakeRouter) -> list[router_pb2.DispatchRequest]:
    return [r for r in router.requests if isinstance(r, router_pb2.DispatchRequest)]


def test_logits_have_the_bits_of_the_model_in_one_process(checkpoint: Path) -> None:
    tokens = some_tokens()
    reference = load_tiny(checkpoint)
    use_local(reference)
    with in_a_thread(serving(checkpoint)) as router:
        for model in (load_tiny(checkpoint), load_trunk(checkpoint)):
            with attach(model, router.address) as attachment:
                assert torch.equal(logits(model, tokens), logits(reference, tokens))
            assert attachment.counters.requests == 2
            assert attachment.counters.rows == 2 * tokens.numel()


def test_generated_tokens_are_those_of_the_model_in_one_process(checkpoint: Path) -> None:
    tokens = some_tokens(batch=1)
    model, reference = load_trunk(checkpoint), load_tiny(checkpoint)
    use_local(reference)
    with in_a_thread(serving(checkpoint)) as router, attach(model, router.address):
        ours = model.generate(tokens, max_new_tokens=8, do_sample=False)
        theirs = reference.generate(tokens, max_new_tokens=8, do_sample=False)
    assert torch.equal(ours, theirs)


def test_the_reference_is_close_to_what_transformers_computes(checkpoint: Path) -> None:
    model = load_tiny(checkpoint)
    theirs = logits(model, some_tokens())
    use_local(model)
    ours = logits(model, some_tokens())
    tolerance = 1e-5 if model.dtype == torch.float32 else 0.2
    assert torch.allclose(ours, theirs, atol=tolerance, rtol=tolerance)
    model.set_experts_implementation("moeops_local_fast")
    assert torch.allclose(logits(model, some_tokens()), theirs, atol=tolerance, rtol=tolerance)


def test_the_reference_sees_weights_that_change(float32: Path) -> None:
    model = load_tiny(float32)
    use_local(model)
    before = logits(model, some_tokens())
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj.mul_(2.0)
    after = logits(model, some_tokens())
    model.set_experts_implementation("eager")
    assert not torch.equal(before, after)
    assert torch.allclose(after, logits(model, some_tokens()), atol=1e-4)


def test_a_session_lasts_as_long_as_its_cache(router: FakeRouter, float32: Path) -> None:
    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        model.generate(some_tokens(), max_new_tokens=3, do_sample=False)
        first = asked(router)
        names = {tuple(s.session for s in r.sequences) for r in first}
        assert len(names) == 1
        assert len(set(names.pop())) == 2
        model.generate(some_tokens(), max_new_tokens=3, do_sample=False)
        second = asked(router)[len(first) :]
        assert not {s.session for r in first for s in r.sequences} & {
            s.session for r in second for s in r.sequences
        }
        assert [state.rows for state in attachment.last] == [2 * (11 + 2)] * 2
    assert [[s.rows for s in r.sequences] for r in first[:4]] == [[11, 11]] * 2 + [[1, 1]] * 2
    tokens = [s.start_token for r in first for s in r.sequences]
    assert tokens[:2] == [b"", b""]
    assert set(tokens[2:]) == {b"1:uid:7"}


def test_a_cache_made_inside_the_model_continues_its_session(
    router: FakeRouter, float32: Path
) -> None:
    model = load_trunk(float32)
    with attach(model, router.address), torch.no_grad():
        first = model(input_ids=some_tokens())
        model(input_ids=some_tokens(length=1), past_key_values=first.past_key_values)
    assert len({s.session for r in asked(router) for s in r.sequences}) == 2


@pytest.mark.parametrize(
    ("names", "batch", "sent"),
    [
        pytest.param("chat", 1, ["chat"], id="one name for one row"),
        pytest.param("chat", 2, ["chat/0", "chat/1"], id="one name for two rows"),
        pytest.param(["a", "b"], 2, ["a", "b"], id="a name for each row"),
    ],
)
def test_sessions_can_be_named(
    router: FakeRouter, float32: Path, names: Any, batch: int, sent: list[str]
) -> None:
    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        with attachment.sessions(names):
            for _ in range(2):
                logits(model, some_tokens(batch))
        logits(model, some_tokens(batch))
        assert attachment.session(sent[0]).rows == 2 * 2 * 11
        attachment.forget(sent[0])
        assert attachment.session(sent[0]).rows == 0
    given = [[s.session for s in r.sequences] for r in asked(router)]
    assert given[:4] == [sent] * 4
    assert not set(given[4]) & set(sent)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a"], "1 sessions are named for a batch of 2"),
        (["a", "a"], "each row needs a name of its own"),
        (["a", "b" * 129], "129 bytes; it must have 1 to 128"),
    ],
)
def test_names_that_do_not_fit(
    router: FakeRouter, float32: Path, names: list[str], sentence: str
) -> None:
    model = load_trunk(float32)
    with attach(model, router.address, session=names) as attachment:
        with pytest.raises(InvalidRequest, match=sentence):
            logits(model, some_tokens())
        with attachment.sessions(["a", "b"]):
            logits(model, some_tokens())
        assert attachment.counters.failed == 0


def test_padding_is_not_sent(router: FakeRouter, float32: Path) -> None:
    reference = load_tiny(float32)
    use_local(reference)
    model = load_trunk(float32)
    tokens = some_tokens(batch=3)
    mask = torch.ones_like(tokens)
    mask[0, :4], mask[1, :1] = 0, 0
    with attach(model, router.address):
        ours = logits(model, tokens, attention_mask=mask)
        generated = model.generate(tokens, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert [s.rows for s in asked(router)[0].sequences] == [7, 10, 11]
    real = mask.bool()
    theirs = logits(reference, tokens, attention_mask=mask)
    assert torch.equal(ours[real], theirs[real])
    expected = reference.generate(tokens, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated, expected)


def test_what_happened_to_a_session_is_told(router: FakeRouter, float32: Path) -> None:
    def degrade(exchange: Exchange) -> Any:
        async def act() -> None:
            response = exchange.echo()
            outcome = response.sequences[0]
            outcome.degraded, outcome.degraded_ppm = True, 500_000
            outcome.repinned_experts.append("e1")
            outcome.rungs.add(rung=router_pb2.RUNG_BACKUP, expert_id="e3", rows=4)
            exchange.answer(response)

        return act()

    model = load_trunk(float32)
    with attach(model, router.address, session="s") as attachment:
        router.script = [degrade]
        logits(model, some_tokens(batch=1))
        (state,) = attachment.last
        counters = attachment.counters
    assert (state.session, state.epoch, state.rows) == ("s", 7, 22)
    assert state.degraded
    assert state.degraded_share == 0.25
    assert state.repinned_experts == {"e1"}
    assert state.rungs == {("Backup", "e3"): 4}
    assert (counters.degraded_requests, counters.repins) == (1, 1)


def test_a_failure_leaves_the_model_usable(router: FakeRouter, float32: Path) -> None:
    model = load_trunk(float32)
    with attach(model, router.address) as attachment:
        router.script = [refuse(grpc.StatusCode.NOT_FOUND, "layer 0 is not served")]
        with pytest.raises(NotFound, match="layer 0 is not served"):
            logits(model, some_tokens())
        first = logits(model, some_tokens())
        router.script = [refuse(grpc.StatusCode.UNAVAILABLE, "e2 has no worker")]
        assert torch.equal(logits(model, some_tokens()), first)
        assert (attachment.counters.failed, attachment.counters.retries) == (1, 1)


def test_threads_run_the_same_model_at_once(router: FakeRouter, float32: Path) -> None:
    reference = load_tiny(float32)
    use_local(reference)
    model = load_trunk(float32)
    batches = [some_tokens(batch=1 + seed % 3, seed=seed) for seed in range(12)]
    with attach(model, router.address), ThreadPoolExecutor(4) as pool:
        ours = list(pool.map(lambda tokens: logits(model, tokens), batches))
    for tokens, answer in zip(batches, ours, strict=True):
        assert torch.equal(answer, logits(reference, tokens))


async def test_a_program_with_an_event_loop(float32: Path) -> None:
    reference = load_tiny(float32)
    use_local(reference)
    async with (
        serving(float32) as router,
        moe_client.aio.attach(load_trunk(float32), router.address) as model,
    ):
        both = await asyncio.gather(
            *(model.generate(some_tokens(1, seed=s), max_new_tokens=4) for s in (1, 2))
        )
        with model.attachment.sessions("named"):
            await model(some_tokens(1))
    for seed, tokens in zip((1, 2), both, strict=True):
        expected = reference.generate(some_tokens(1, seed=seed), max_new_tokens=4)
        assert torch.equal(tokens, expected)
    assert {s.session for r in asked(router)[-2:] for s in r.sequences} == {"named"}


def test_detaching_gives_the_model_its_experts_back(router: FakeRouter, float32: Path) -> None:
    model = load_tiny(float32)
    before, threads = logits(model, some_tokens()), set(threading.enumerate())
    attachment = attach(model, router.address)
    with pytest.raises(InvalidRequest, match="attached already"):
        attach(model, router.address)
    attachment.detach()
    attachment.detach()
    assert torch.equal(logits(model, some_tokens()), before)
    assert router.requests == []
    assert set(threading.enumerate()) <= threads


def test_gradients_are_refused_and_not_lost(router: FakeRouter, float32: Path) -> None:
    model = load_tiny(float32)
    with attach(model, router.address):
        loss = model(input_ids=some_tokens()).logits.sum()
        with pytest.raises(InvalidRequest, match="no gradients"):
            loss.backward()


def test_nobody_answers(float32: Path) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        attach(load_trunk(float32), "127.0.0.1:9", timeout_s=0.2)


Description = router_pb2.DescribeMixtureResponse
ANOTHER = router_pb2.GateDescription(sha256="cd" * 32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            lambda d: setattr(d, "hidden_size", 64),
            "hidden size is 32; mixture tiny serves 64",
            id="hidden size",
        ),
        pytest.param(
            lambda d: setattr(d, "layers", 3),
            "number of MoE layers is 2; mixture tiny serves 3",
            id="layers",
        ),
        pytest.param(
            lambda d: setattr(d, "dtype", 2),
            "dtype is Float32; mixture tiny serves BFloat16",
            id="dtype",
        ),
        pytest.param(
            lambda d: d.gates[0].layers.remove(1),
            "mixture tiny has no gate for layer 1",
            id="a layer without a gate",
        ),
        pytest.param(
            lambda d: setattr(d, "trunk_sha256", "ab" * 32),
            r"trunk is [0-9a-f]{64}; mixture tiny serves abab",
            id="trunk",
        ),
        pytest.param(
            lambda d: [d.ClearField("trunk_sha256"), d.gates[0].MergeFrom(ANOTHER)],
            r"gate gate is [0-9a-f]{64}; mixture tiny serves cdcd",
            id="a gate where nothing is known of the trunk",
        ),
    ],
)
def test_a_model_that_is_not_the_mixtures(
    float32: Path, change: Callable[[Description], None], sentence: str
) -> None:
    router = FakeRouter(describe(float32))
    change(router.description)
    with in_a_thread(router):
        model = load_tiny(float32)
        with pytest.raises(Mismatch, match=sentence):
            attach(model, router.address)
        assert model.get_experts_implementation()[""] == "grouped_mm"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            lambda d: d.gates[0].experts.append("e4"),
            "number of experts in layer 0 is 4; mixture tiny serves 5",
            id="experts",
        ),
        pytest.param(
            lambda d: setattr(d.gates[0], "top_k", 1),
            "top-k in layer 0 is 2; mixture tiny serves 1",
            id="top-k",
        ),
    ],
)
def test_a_gate_that_is_trusted_must_look_like_stable(
    float32: Path, change: Callable[[Description], None], sentence: str
) -> None:
    router = FakeRouter(describe(float32))
    change(router.description)
    with in_a_thread(router), pytest.raises(Mismatch, match=sentence):
        attach(load_tiny(float32), router.address, digests=False)


def test_a_gate_is_known_in_any_dtype_that_keeps_its_values(tmp_path: Path, float32: Path) -> None:
    save_tiny(tmp_path, torch.bfloat16)
    description = describe(tmp_path)
    description.dtype = types_pb2.DTYPE_FLOAT32
    with in_a_thread(FakeRouter(description)) as router:
        wide = load_trunk(tmp_path, dtype=torch.float32)
        attach(wide, router.address).detach()
        with pytest.raises(Mismatch, match="trunk"):
            attach(load_trunk(float32), router.address)


def test_a_trunk_alone_cannot_be_the_reference(float32: Path) -> None:
    with pytest.raises(InvalidRequest, match="loaded without its experts"):
        use_local(load_trunk(float32))
