"""What sessions were worth: losses as they are, sums by session, sent beside all requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moe_client import InvalidRequest, Worth, attach, generate, load_trunk
from moe_client.aio import RouterClient
from moe_client.calls import Call, make_call
from moe_client.losses import LossWatch, loss_of
from moe_client.reporter import Reporter
from moe_client.retry import Health, choose
from moe_client.worth import Ledger
from moeops.v1 import router_pb2
from tests.client.test_attachment import serving, some_tokens
from tests.client.tiny import VOCABULARY, save_tiny
from tests.fakes.router import Exchange, FakeRouter, in_a_thread

TOKEN = b"1:uid:7"

# -- losses --------------------------------------------------------------------------------------


def some_logits(batch: int, length: int) -> torch.Tensor:
    return torch.randn(batch, length, VOCABULARY, generator=torch.Generator().manual_seed(1))


def bits(logits: torch.Tensor, labels: torch.Tensor) -> float:
    chances = torch.softmax(logits.double(), dim=-1)
    return float(-chances.gather(-1, labels[:, None]).log2().sum())


def test_a_loss_is_in_bits() -> None:
    even = loss_of(torch.zeros(3, 8), torch.tensor([0, 3, 7]))
    assert even.tokens == 3
    assert even.bits == pytest.approx(9.0)
    logits, labels = some_logits(1, 5)[0], some_tokens(1, 5)[0]
    assert loss_of(logits, labels).bits == pytest.approx(bits(logits, labels), rel=1e-5)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_however_a_text_is_fed_each_token_after_the_first_counts_once(lengths: list[int]) -> None:
    total = sum(lengths)
    tokens, logits = some_tokens(2, total), some_logits(2, total)
    watch, found, at = LossWatch(), {"a": [0.0, 0.0], "b": [0.0, 0.0]}, 0
    for length in lengths:
        call = Call(("a", "b"), 2 * length, (length, length), cached=at > 0)
        part = slice(at, at + length)
        for session, loss in watch.losses(call, tokens[:, part], logits[:, part]):
            found[session][0] += loss.tokens
            found[session][1] += loss.bits
        at += length
    for row, session in enumerate("ab"):
        whole = bits(logits[row, :-1], tokens[row, 1:])
        assert found[session] == [total - 1, pytest.approx(whole, rel=1e-5, abs=1e-9)]


def test_padding_has_no_loss_and_the_last_logits_may_be_all_there_are() -> None:
    watch, tokens, logits = LossWatch(), some_tokens(2, 6), some_logits(2, 6)
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    found = dict(watch.losses(make_call(("a", "b"), 6, mask), tokens, logits))
    assert found["a"].tokens == 2
    assert found["a"].bits == pytest.approx(bits(logits[0, 3:-1], tokens[0, 4:]), rel=1e-5)
    assert found["b"].tokens == 5
    call = make_call(("a", "b"), 6, None)
    assert list(watch.losses(call, tokens, logits[:, -1:])) == []
    step = make_call(("a", "b"), 1, None, cached=True)
    found = dict(watch.losses(step, tokens[:, :1], logits[:, :1]))
    assert found["a"].bits == pytest.approx(bits(logits[0, -1:], tokens[0, :1]), rel=1e-5)


def test_a_new_cache_forgets_what_came_before_and_so_does_a_long_time() -> None:
    watch, tokens, logits = LossWatch(limit=1), some_tokens(1, 1), some_logits(1, 1)
    for session, cached in (("a", False), ("a", False), ("b", True), ("a", True)):
        assert (
            list(watch.losses(make_call((session,), 1, None, cached=cached), tokens, logits)) == []
        )


# -- sums ----------------------------------------------------------------------------------------


def test_sums_are_by_session_and_numbered() -> None:
    ledger = Ledger(limit=2)
    assert ledger.add(Worth("a", b"old", 3, 1.5))
    assert ledger.add(Worth("a", TOKEN, 1, 0.5, 1, -2.0))
    assert ledger.add(Worth("b", TOKEN, scores=1, score_sum=4.0))
    assert not ledger.add(Worth("c", TOKEN, 1, 1.0))
    first, second = ledger.take()
    assert first == router_pb2.SessionOutcome(
        session="a", start_token=TOKEN, report=1, tokens=4, loss_bits=2.0, scores=1, score_sum=-2.0
    )
    assert (second.session, second.report, second.score_sum) == ("b", 1, 4.0)
    assert ledger.take() == []
    ledger.add(Worth("a", TOKEN, 1, 1.0))
    assert [outcome.report for outcome in ledger.take()] == [2]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"session": ""}, "'' has 0 bytes; it must have 1 to 128"),
        ({"start_token": b""}, "session s has no start token: nothing answered it"),
        ({"tokens": -1}, "tokens is -1; it must be 0 or more"),
        ({"loss_bits": math.inf}, "loss_bits is inf; it must be finite"),
        ({"score_sum": math.nan}, "score_sum is nan; it must be finite"),
    ],
)
def test_what_no_router_would_take(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        Worth(**{"session": "s", "start_token": TOKEN} | wrong)


# -- sending -------------------------------------------------------------------------------------


class Routers:
    """Takes reports at some addresses, and fails at others with a status.

    `refusing` is what it refuses of a message, by session.
    """

    def __init__(
        self,
        failing: Mapping[str, grpc.StatusCode],
        refusing: Mapping[str, grpc.StatusCode] | None = None,
    ) -> None:
        self.failing, self.refusing = failing, refusing or {}
        self.taken: dict[str, list[str]] = {"one": [], "two": []}

    async def send(
        self, address: str, message: router_pb2.ReportOutcomeRequest, timeout_s: float
    ) -> router_pb2.ReportOutcomeResponse:
        if address in self.failing:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self.failing[address], none, none)
        said = router_pb2.ReportOutcomeResponse()
        for index, outcome in enumerate(message.outcomes):
            if (code := self.refusing.get(outcome.session)) is None:
                self.taken[address].append(outcome.session)
            else:
                said.refused.add(index=index).failure.code = code.value[0]
        return said

    def health(self) -> Mapping[str, Health]:
        return dict.fromkeys(self.taken, Health.LIVE)


@pytest.mark.parametrize(
    ("failing", "sent", "dropped"),
    [
        pytest.param({}, 20, 0, id="all well"),
        pytest.param({"one": grpc.StatusCode.UNAVAILABLE}, 20, 0, id="one gone"),
        pytest.param(
            dict.fromkeys(("one", "two"), grpc.StatusCode.UNAVAILABLE), 0, 20, id="both gone"
        ),
        pytest.param(
            dict.fromkeys(("one", "two"), grpc.StatusCode.UNIMPLEMENTED), 0, 20, id="not known"
        ),
    ],
)
async def test_a_sessions_reports_go_to_one_router_or_to_the_next(
    failing: Mapping[str, grpc.StatusCode], sent: int, dropped: int
) -> None:
    routers = Routers(failing)
    reporter = Reporter(routers.send, routers.health, period_s=60)
    for number in range(20):
        reporter.add("tiny", Worth(f"s{number}", TOKEN, 1, 1.0))
    await reporter.close()
    assert (reporter.sent, reporter.dropped) == (sent, dropped)
    for address, sessions in routers.taken.items():
        if not failing:
            assert all(choose(routers.health(), s, ()) == address for s in sessions)


async def test_a_session_that_is_refused_is_counted_and_costs_the_others_nothing() -> None:
    lost, early = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE
    routers = Routers({}, {"s3": lost, "s5": early})
    reporter = Reporter(routers.send, routers.health, period_s=60)
    for number in range(20):
        reporter.add("tiny", Worth(f"s{number}", TOKEN, 1, 1.0))
    await reporter.close()
    assert (reporter.sent, reporter.dropped) == (18, 2)
    assert sorted(routers.taken["one"] + routers.taken["two"]) == sorted(
        f"s{number}" for number in range(20) if number not in (3, 5)
    )


async def test_a_session_whose_epoch_a_router_does_not_know_yet_goes_to_the_next() -> None:
    early = {"s": grpc.StatusCode.UNAVAILABLE}
    knowing, lagging = Routers({}), Routers({}, early)
    first = choose(knowing.health(), "s", ())

    async def send(
        address: str, message: router_pb2.ReportOutcomeRequest, timeout_s: float
    ) -> router_pb2.ReportOutcomeResponse:
        routers = lagging if address == first else knowing
        return await routers.send(address, message, timeout_s)

    reporter = Reporter(send, knowing.health, period_s=60)
    reporter.add("tiny", Worth("s", TOKEN, 1, 1.0))
    await reporter.close()
    assert (reporter.sent, reporter.dropped) == (1, 0)
    assert [*knowing.taken.values()].count(["s"]) == 1


async def test_closing_sends_what_waits() -> None:
    routers = Routers({})
    reporter = Reporter(routers.send, routers.health, period_s=60)
    reporter.add("tiny", Worth("s", TOKEN, 1, 1.0))
    await reporter.close()
    assert reporter.sent == 1


async def test_a_client_reports_scores() -> None:
    async with FakeRouter() as router:
        async with RouterClient(router.address) as client:
            await client.report(Worth("s", TOKEN, scores=1, score_sum=0.5))
        assert client.reported == 1
        (message,) = router.reports
        assert message.mixture == "tiny"
        assert [(o.session, o.scores, o.score_sum) for o in message.outcomes] == [("s", 1, 0.5)]


# -- from a model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.float32)


@pytest.fixture
def router(checkpoint: Path) -> Iterator[FakeRouter]:
    with in_a_thread(serving(checkpoint)) as fake:
        yield fake


def sums(router: FakeRouter) -> dict[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = {}
    for outcome in (o for report in router.reports for o in report.outcomes):
        tokens, loss = found.get(outcome.session, (0, 0.0))
        found[outcome.session] = tokens + outcome.tokens, loss + outcome.loss_bits
    return found


def test_a_model_reports_the_loss_of_what_it_reads(checkpoint: Path, router: FakeRouter) -> None:
    model = load_trunk(checkpoint)
    with attach(model, router.address, report_outcomes=True) as attachment:
        made = generate(model, attachment, some_tokens(2), max_new_tokens=5, session=["a", "b"])
        attachment.report("b", score=2.5)
    found = sums(router)
    with attach(model, router.address), torch.no_grad():
        logits = model(input_ids=made.tokens).logits
    for row, session in enumerate("ab"):
        whole = bits(logits[row, :14], made.tokens[row, 1:15])
        tokens, loss = found[session]
        assert tokens == 14
        assert loss == pytest.approx(whole, rel=1e-4)
    assert sum(o.score_sum for report in router.reports for o in report.outcomes) == 2.5
    assert attachment.counters.unreported == 0


def test_nothing_is_reported_unasked_or_of_sessions_that_were_degraded(
    checkpoint: Path, router: FakeRouter
) -> None:
    def degrade(exchange: Exchange) -> Any:
        response = exchange.echo()
        response.sequences[0].degraded = True

        async def act() -> None:
            exchange.answer(response)

        return act()

    model = load_trunk(checkpoint)
    with attach(model, router.address), torch.no_grad():
        model(input_ids=some_tokens(2))
    assert router.reports == []
    router.script = [degrade]
    with attach(model, router.address, report_outcomes=True, session=["a", "b"]), torch.no_grad():
        model(input_ids=some_tokens(2))
    assert [*sums(router)] == ["b"]


def test_what_no_router_takes_fails_nobody(checkpoint: Path, router: FakeRouter) -> None:
    router.refuses_reports = grpc.StatusCode.INTERNAL
    model = load_trunk(checkpoint)
    with attach(model, router.address, report_outcomes=True, session="s") as attachment:
        with torch.no_grad():
            model(input_ids=some_tokens(1))
        with pytest.raises(InvalidRequest, match="session unknown has no start token"):
            attachment.report("unknown", score=1.0)
    assert attachment.counters.unreported == 1
    assert attachment.counters.failed == 0
