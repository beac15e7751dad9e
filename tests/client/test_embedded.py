"""A router inside the client's process, over real workers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_client import (
    Closed,
    RouterClient,
    Rows,
    Sequence,
    Unauthenticated,
    Unavailable,
    aio,
    attach,
    generate,
    load_trunk,
    use_local,
)
from moe_core.dtypes import FLOAT32
from moe_router import embedded as embedded_module
from moe_router.edge import CannotStart
from moe_router.embedded import EmbeddedRouter
from moe_router.settings import BadSetting
from moe_router.sources import TableFile
from tests.client.served import MIXTURE, Served, embedded, serve
from tests.client.test_attachment import logits, some_tokens
from tests.client.test_rollout_processes import (
    TRIED,
    AtStep,
    greedy,
    on_trial,
    reference,
    take_back,
)
from tests.client.tiny import load_tiny, save_tiny

Running = tuple[Path, Served]
FACTOR = 4.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("embedded")
    checkpoint = save_tiny(directory / "checkpoint", torch.float32)
    with serve(checkpoint, directory, dtype="Float32", tried={TRIED: FACTOR}) as served:
        yield checkpoint, served


def some_rows(session: str, seed: int = 0, layer: int = 0, count: int = 5) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 32, generator=generator).numpy().astype(FLOAT32.numpy)
    return Rows(layer, hidden, (Sequence(session, count),))


def wait_for(router: EmbeddedRouter, epoch: int) -> None:
    until = time.monotonic() + 10
    with RouterClient(router) as client:
        while client.describe().epoch < epoch:
            assert time.monotonic() < until, f"never saw epoch {epoch}"
            time.sleep(0.02)


def test_logits_and_tokens_have_the_bits_of_the_model_in_one_process(running: Running) -> None:
    checkpoint, served = running
    model, here = load_trunk(checkpoint), load_tiny(checkpoint)
    use_local(here)
    with embedded(served) as router, attach(model, router) as attachment:
        for batch, length in ((1, 1), (5, 17)):
            tokens = some_tokens(batch, length)
            assert torch.equal(logits(model, tokens), logits(here, tokens))
        ours = model.generate(some_tokens(1), max_new_tokens=12, do_sample=False)
        assert all(state.degraded_share == 0.0 for state in attachment.last)
        assert attachment.counters.retries == 0
    theirs = here.generate(some_tokens(1), max_new_tokens=12, do_sample=False)
    assert torch.equal(ours, theirs)


def test_threads_ask_it_at_once(running: Running) -> None:
    checkpoint, served = running
    model, here = load_trunk(checkpoint), load_tiny(checkpoint)
    use_local(here)
    batches = [some_tokens(1 + seed % 3, 4 + seed, seed) for seed in range(12)]
    expected = [logits(here, tokens) for tokens in batches]
    with embedded(served) as router, attach(model, router), ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda tokens: logits(model, tokens), batches))
    for ours, theirs in zip(answers, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_taken_back_is_prefilled_again_by_stable(running: Running) -> None:
    checkpoint, served = running
    on_trial(served, 100)
    model, prompt = load_trunk(checkpoint), some_tokens(2)
    with embedded(served) as router:
        wait_for(router, served.table.table.epoch)

        def taken_back() -> None:
            take_back(served)
            wait_for(router, served.table.table.epoch)

        noted = AtStep(4, taken_back)
        with attach(model, router) as attachment:
            made = generate(model, attachment, prompt, max_new_tokens=8, process=noted)
    assert made.prefilled_at == (11, 15)
    before = greedy(reference(checkpoint, candidate=True), prompt, 4)
    after = greedy(reference(checkpoint), made.tokens[:, :15], 4)
    for ours, theirs in zip(noted.logits, [*before, *after], strict=True):
        assert torch.equal(ours, theirs)


def test_a_program_with_a_loop_of_its_own_asks_it_too(running: Running) -> None:
    _, served = running

    async def ask(router: EmbeddedRouter) -> Any:
        async with aio.RouterClient(router) as client:
            several = [client.route(some_rows(f"s{n}", n)) for n in range(8)]
            return [answer.hidden for answer in await asyncio.gather(*several)]

    with embedded(served) as router, RouterClient(served.addresses) as elsewhere:
        here = asyncio.run(ask(router))
        there = [elsewhere.route(some_rows(f"s{n}", n)).hidden for n in range(8)]
    for ours, theirs in zip(here, there, strict=True):
        assert (ours == theirs).all()


async def test_a_loop_that_outlives_the_router(running: Running) -> None:
    _, served = running
    with embedded(served) as router:
        client = aio.RouterClient(router, timeout_s=0.5)
        assert (await client.route(some_rows("s"), timeout_s=30.0)).hidden.shape == (5, 32)
        await asyncio.to_thread(router.close)
        with pytest.raises(Unavailable, match="of this process was closed"):
            await client.route(some_rows("s"))
        await client.close()


def test_others_ask_it_as_any_router(running: Running, tmp_path: Path) -> None:
    _, served = running
    address = f"unix:{tmp_path / 'router.sock'}"
    with embedded(served, listen=address) as router:
        with RouterClient(router) as inside, RouterClient(address) as outside:
            ours, theirs = inside.route(some_rows("one")), outside.route(some_rows("two"))
        assert (ours.hidden == theirs.hidden).all()


def test_callers_show_the_token_of_their_tenant(running: Running, tmp_path: Path) -> None:
    _, served = running
    (tmp_path / "acme").write_text(hashlib.sha256(b"known").hexdigest() + "\n")
    tenants = {"tenants": json.dumps([{"name": "acme"}]), "tenants_folder": str(tmp_path)}
    with embedded(served, **tenants) as router:
        with RouterClient(router, mixture=MIXTURE, token="known") as known:
            assert known.route(some_rows("s")).hidden.shape == (5, 32)
        with RouterClient(router, mixture=MIXTURE, token="unknown") as unknown:
            with pytest.raises(Unauthenticated, match="token of no tenant"):
                unknown.route(some_rows("s"))
            with pytest.raises(Unauthenticated, match="token of no tenant"):
                unknown.describe()


def test_a_closing_router_answers_what_is_under_way_and_nothing_more(running: Running) -> None:
    _, served = running
    answers: list[Any] = []
    with embedded(served) as router:
        client = RouterClient(router, timeout_s=0.5)
        stopped = threading.Event()

        def ask() -> None:
            number = 0
            while not stopped.is_set():
                number += 1
                try:
                    answers.append(client.route(some_rows(f"s{number}", number)))
                except (Closed, Unavailable) as error:
                    answers.append(error)
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 20:
            time.sleep(0.01)
        router.close()
        for thread in threads:
            thread.join(10)
        stopped.set()
        assert not any(thread.is_alive() for thread in threads)
        assert sum(isinstance(answer, Closed | Unavailable) for answer in answers) == 4
        with pytest.raises(Closed, match="router in this process, was closed"):
            client.route(some_rows("s"))
        client.close()
        router.close()
        with pytest.raises(RuntimeError, match="start it first"), RouterClient(router):
            pass
        with router.start(), RouterClient(router) as again:
            assert again.route(some_rows("s")).hidden.shape == (5, 32)


def test_a_dead_worker_is_made_up_for(running: Running) -> None:
    checkpoint, _ = running
    directory = checkpoint.parent / "two"
    directory.mkdir()
    served = serve(checkpoint, directory, dtype="Float32", routers=0)
    with served as two, embedded(two) as router, RouterClient(router) as client:
        before = client.route(some_rows("s")).hidden
        two.workers[0].kill()
        answers = [client.route(some_rows(f"s{n}")) for n in range(50)]
    assert all((answer.hidden == before).all() for answer in answers)
    assert not any(outcome.degraded for answer in answers for outcome in answer.outcomes)


class Broken:
    """Watches workers until something breaks that nobody has thought of."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._breaks = asyncio.Event()

    async def follow(self, take: Callable[[Collection[str]], None]) -> None:
        take([self._address])
        await self._breaks.wait()
        raise ZeroDivisionError("of the test")

    async def end(self) -> None:
        self._breaks.set()


def test_what_ended_it_is_raised_once_when_it_is_closed(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, served = running
    broken, table = Broken(served.workers[0].link), TableFile(served.table.path)
    monkeypatch.setattr(embedded_module, "sources", lambda settings: (table, broken))
    with embedded(served) as router:
        with RouterClient(router) as client:
            assert client.route(some_rows("s")).hidden.shape == (5, 32)
        router.thread.submit(broken.end()).result()
        with pytest.raises(ZeroDivisionError, match="of the test"):
            router.close()
        with pytest.raises(RuntimeError, match="start it first"):
            RouterClient(router)


def test_what_it_cannot_start_with() -> None:
    with pytest.raises(BadSetting, match=r"--mixture .* is missing"):
        EmbeddedRouter([], {})
    with pytest.raises(RuntimeError, match="start it first"):
        RouterClient(EmbeddedRouter(["--mixture", "tiny"], {}))
    alive = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        router = EmbeddedRouter(
            ["--mixture", "tiny", "--table-file", "none", "--workers", "unix:/none"],
            {"MOE_LISTEN": address, "MOE_METRICS": "none"},
        )
        with pytest.raises(CannotStart, match=f"--listen {address}"):
            router.start()
    assert threading.active_count() <= alive + 1  # gRPC's own, for all loops, may be new
