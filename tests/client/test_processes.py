"""The client with real routers and real workers: the bits of the model in one process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from moe_client import RouterClient, Rows, Sequence, attach, load_trunk, use_local
from moe_core.dtypes import by_name
from tests.client.served import Served, serve
from tests.client.test_attachment import logits, some_tokens
from tests.client.test_family_checkpoints import save
from tests.client.tiny import load_tiny, save_tiny

NAMES = {torch.float32: "Float32", torch.bfloat16: "BFloat16"}


@pytest.fixture(scope="module", params=NAMES, ids=str)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Served]]:
    directory = tmp_path_factory.mktemp("served")
    checkpoint = save_tiny(directory / "checkpoint", request.param)
    with serve(checkpoint, directory, dtype=NAMES[request.param], routers=2) as running:
        yield checkpoint, running


def test_logits_and_tokens_have_the_bits_of_the_model_in_one_process(
    served: tuple[Path, Served],
) -> None:
    checkpoint, running = served
    model, reference = load_trunk(checkpoint), load_tiny(checkpoint)
    use_local(reference)
    with attach(model, running.addresses) as attachment:
        for batch, length in ((1, 1), (1, 40), (5, 17)):
            tokens = some_tokens(batch, length)
            assert torch.equal(logits(model, tokens), logits(reference, tokens))
        ours = model.generate(some_tokens(1), max_new_tokens=12, do_sample=False)
        assert all(state.degraded_share == 0.0 for state in attachment.last)
    theirs = reference.generate(some_tokens(1), max_new_tokens=12, do_sample=False)
    assert torch.equal(ours, theirs)


def test_a_model_whose_first_layer_has_no_experts_has_its_bits_too(tmp_path: Path) -> None:
    """DeepSeek-V3: grouped experts, shared ones beside them, and a bias that only selects."""
    reference = save("DeepSeek-V3", tmp_path / "checkpoint", torch.bfloat16)
    use_local(reference)
    with serve(tmp_path / "checkpoint", tmp_path, dtype="BFloat16") as running:
        model = load_trunk(tmp_path / "artifacts" / "trunk")
        with attach(model, running.addresses) as attachment:
            tokens = some_tokens(5, 17)
            assert torch.equal(logits(model, tokens), logits(reference, tokens))
            assert all(state.degraded_share == 0.0 for state in attachment.last)


def test_bits_are_the_same_among_other_peoples_requests(served: tuple[Path, Served]) -> None:
    checkpoint, running = served
    reference = load_tiny(checkpoint)
    use_local(reference)
    batches = [some_tokens(1 + seed % 4, 5 + seed, seed) for seed in range(24)]
    expected = [logits(reference, tokens) for tokens in batches]
    model = load_trunk(checkpoint)
    before = running.mixed_batches
    with attach(model, running.addresses) as attachment, ThreadPoolExecutor(8) as pool:
        while running.mixed_batches == before:
            answers = list(pool.map(lambda tokens: logits(model, tokens), batches))
            for ours, theirs in zip(answers, expected, strict=True):
                assert torch.equal(ours, theirs)
        assert attachment.counters.failed == 0


def test_route_chooses_as_the_model_does(served: tuple[Path, Served]) -> None:
    checkpoint, running = served
    model = load_tiny(checkpoint)
    use_local(model)
    block = model.model.layers[1].mlp
    dtype = by_name(NAMES[model.dtype]).numpy
    hidden = np.random.default_rng(0).standard_normal((9, 32), np.float32).astype(dtype)
    with RouterClient(running.addresses) as client:
        answer = client.route(Rows(1, hidden, (Sequence("s", 9),)))
    with torch.no_grad():
        given = torch.from_numpy(hidden.astype(np.float32)).to(model.dtype)
        expected = block(given[None])[0].float().numpy()
    tolerance = 1e-5 if model.dtype == torch.float32 else 0.05
    np.testing.assert_allclose(answer.hidden.astype(np.float32), expected, atol=tolerance)


def test_routers_and_workers_that_stop_or_die_fail_no_request(
    served: tuple[Path, Served],
) -> None:
    """The last one of this module: it leaves half of what is served dead."""
    checkpoint, running = served
    model, reference = load_trunk(checkpoint), load_tiny(checkpoint)
    use_local(reference)
    tokens = some_tokens(1)
    expected = logits(reference, tokens)
    with attach(model, running.addresses) as attachment:

        def ask(times: int) -> None:
            for _ in range(times):
                assert torch.equal(logits(model, tokens), expected)

        ask(10)
        running.routers[0].signal(signal.SIGSTOP)
        ask(10)
        running.routers[0].signal(signal.SIGCONT)
        ask(10)
        running.routers[1].kill()
        ask(10)
        running.workers[0].kill()
        ask(10)
        assert attachment.counters.failed == 0
        assert attachment.counters.requests == 2 * 50
        assert all(state.degraded_share == 0.0 for state in attachment.last)
