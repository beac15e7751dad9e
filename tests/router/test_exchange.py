"""The exchange under every order of answers and failures: each pair is answered once, and rightly.

Experts multiply by powers of two, so that sums in float32 are exact and any mistake shows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.rows import Role
from moe_core.table import Failover, Rung, Table
from moe_router.counters import Counters
from moe_router.exchange import Exchange
from moe_router.ladder import NOT_DEGRADED, Cause
from moe_router.message import Message, Outlook
from moe_router.plan import Pairs
from moe_router.replica import Offer, Routable
from moe_router.request import Request, parse_dispatch
from moe_router.sessions import Pins
from moe_router.variants import EMPTY
from moe_router.view import View
from moeops.v1.link_pb2 import GroupResult, Result
from moeops.v1.types_pb2 import Failure
from tests.support.dispatching import dispatch_request
from tests.support.tables import expert, gate, table, version

NAMES = ["e0", "e1", "e2"]
VERSIONS = {name: version(name) for name in (*NAMES, "dense")}
FACTOR = {VERSIONS[name].sha256: 2.0**n for n, name in enumerate((*NAMES, "dense"))}
HIDDEN = 2


def mixture(ladder: tuple[Rung, ...] = tuple(Rung)) -> Table:
    rows = [expert(name, VERSIONS[name], backup="e2") for name in NAMES]
    dense = expert("dense", VERSIONS["dense"], role=Role.DENSE)
    failover = Failover(ladder, 100)
    return table(
        [*rows, dense], [gate(NAMES)], hidden_size=HIDDEN, dtype="Float32", failover=failover
    )


def parsed(content: Table, chosen: list[list[int]]) -> Request:
    """Return a request of equal weights; an EMPTY slot has none, as a gate leaves it."""
    hidden = np.arange(1, len(chosen) + 1, dtype=np.float32)[:, None].repeat(HIDDEN, 1)
    named = [[max(0, expert) for expert in row] for row in chosen]
    request = parse_dispatch(dispatch_request(content, named, hidden=hidden), View.of(content))
    experts = np.array(chosen, np.int32)
    weights = np.where(experts == EMPTY, 0, request.weights).astype(np.float32)
    return replace(request, experts=experts, weights=weights)


def result(message: Message, failures: list[GroupResult | None]) -> tuple[Result, memoryview]:
    """Answer a message; a group with a failure has no rows."""
    groups, answers, at = [], [], 0
    for part, failure in zip(message.parts, failures, strict=True):
        rows = message.rows[at : at + len(part.pairs)]
        at += len(part.pairs)
        groups.append(failure or GroupResult())
        if failure is None or not failure.HasField("failure"):
            answers.append(rows * np.float32(FACTOR[part.ask.sha256]))
    body = np.concatenate(answers).tobytes() if answers else b""
    return Result(groups=groups), memoryview(body)


FAILURES = [
    None,
    GroupResult(failure=Failure(code=5)),
    GroupResult(failure=Failure(code=4)),
    GroupResult(nonfinite_rows=1),
]


class Run:
    """Drives one exchange and notes who answered for each pair at last."""

    def __init__(self, content: Table, chosen: list[list[int]], held: dict[str, set[str]]) -> None:
        self.view = View.of(content)
        self.request = parsed(content, chosen)
        self.answered_by: dict[int, float] = {}
        self.hedged: set[int] = set()
        self.unused = 0
        offers = [Offer(w, dict.fromkeys(d, frozenset({0}))) for w, d in held.items()]
        self.outlook = Outlook(0.0, self.view, Routable.of(offers), {})
        self.counters = Counters()
        self.exchange = Exchange(self.request, self.view, [Pins({})], 5.0, 0)
        self.open = self.exchange.begin(self.outlook, self.counters)

    def step(self, at: int, cause: Cause | None, failures: list[int]) -> None:
        message = self.open.pop(at % len(self.open))
        if cause is not None:
            self.open += self.exchange.failed(message, cause, self.outlook, self.counters)
            return
        marks = [FAILURES[failures[n % len(failures)]] for n in range(len(message.parts))]
        for part, mark in zip(message.parts, marks, strict=True):
            if self._late(part.pairs):
                continue
            if mark is None:
                self._note(part.pairs, FACTOR[part.ask.sha256])
            elif mark.nonfinite_rows:
                self.unused += len(part.pairs)
        self.open += self.exchange.answered(
            message, *result(message, marks), self.outlook, self.counters
        )

    def hedge(self, at: int) -> None:
        message = self.open[at % len(self.open)]
        twins = self.exchange.late(message, self.outlook, self.counters)
        self.hedged |= {pair for twin in twins for part in twin.parts for pair in part.pairs}
        self.open += twins

    def _late(self, pairs: Pairs) -> bool:
        """Whether these were answered, which may only be where two workers were asked."""
        found = set(pairs.tolist())
        return found <= self.hedged and found <= self.answered_by.keys()

    def _note(self, pairs: Pairs, factor: float) -> None:
        for pair in pairs.tolist():
            assert pair not in self.answered_by, "answered twice"
            self.answered_by[pair] = factor


workers = st.dictionaries(
    st.sampled_from(["w1", "w2", "w3"]), st.sets(st.sampled_from(sorted(FACTOR))), max_size=3
)
steps = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from([None, None, Cause.BROKEN, Cause.DEADLINE]),
        st.lists(st.integers(0, 3), min_size=1, max_size=3),
        st.booleans(),
    ),
    max_size=30,
)
choices = st.lists(st.lists(st.integers(EMPTY, 2), min_size=2, max_size=2), min_size=1, max_size=6)


@settings(max_examples=300)
@given(choices, workers, steps)
def test_whatever_fails_each_pair_is_answered_once_and_the_sum_is_right(
    chosen: list[list[int]],
    held: dict[str, set[str]],
    doings: list[tuple[int, Cause | None, list[int], bool]],
) -> None:
    run = Run(mixture(), chosen, held)
    for at, cause, failures, late in doings:
        if run.open and late:
            run.hedge(at)
        elif run.open:
            run.step(at, cause, failures)
    while run.open:
        run.step(0, None, [0])

    assert run.exchange.finished
    hidden, (outcome,) = run.exchange.answer()
    expected = np.zeros(len(chosen))
    for token in range(len(chosen)):
        factors = [run.answered_by.get(2 * token + slot) for slot in (0, 1)]
        kept = [f for f in factors if f is not None]
        mass = 0.5 * sum(expert != EMPTY for expert in chosen[token])
        expected[token] = (token + 1) * mass * sum(kept) / len(kept) if kept else 0
    assert hidden[:, 0].tolist() == expected.tolist()
    counted = sum(tally.rows for _, tally in run.counters.versions())
    assert counted == len(run.answered_by) + run.unused, "rows are counted once"
    pairs = sum(expert != EMPTY for row in chosen for expert in row)
    left = pairs - len(run.answered_by)
    told = sum(r for g, _, r in outcome.rungs if g in (Rung.RENORMALISE, Rung.RESIDUAL))
    assert told == left
    degraded = sum(r for g, _, r in outcome.rungs if g not in NOT_DEGRADED)
    assert outcome.lost == degraded * 0.5
    assert outcome.mass == pairs * 0.5


@given(choices, st.randoms(use_true_random=False))
def test_answers_in_any_order_give_the_dense_computation(
    chosen: list[list[int]], order: object
) -> None:
    held = {"w1": {VERSIONS["e0"].sha256}, "w2": {VERSIONS[n].sha256 for n in ("e1", "e2")}}
    run = Run(mixture(), chosen, held)
    while run.open:
        run.step(order.randrange(9), None, [0])  # type: ignore[attr-defined]

    hidden, (outcome,) = run.exchange.answer()

    factors = [[2.0**expert if expert != EMPTY else 0.0 for expert in row] for row in chosen]
    dense = [(token + 1) * sum(row) / 2 for token, row in enumerate(factors)]
    assert hidden[:, 0].tolist() == dense
    assert outcome.rungs == ()
    assert outcome.lost == 0


def test_an_attempt_gets_half_of_the_time_that_remains() -> None:
    run = Run(mixture(), [[0, 0]], {w: {VERSIONS["e0"].sha256} for w in ("w1", "w2")})

    first = run.open[0]
    run.outlook = Outlook(2.5, run.view, run.outlook.routable, {})
    run.step(0, Cause.DEADLINE, [0])

    assert first.timeout_s == 2.5
    assert run.open[0].timeout_s == 1.25
    assert {first.worker, run.open[0].worker} == {"w1", "w2"}


def test_an_answer_that_comes_after_the_refusal_changes_nothing() -> None:
    held = {"w1": {VERSIONS["e0"].sha256}, "w2": {VERSIONS["e1"].sha256}}
    run = Run(mixture(ladder=(Rung.REPLICA,)), [[0, 1]], held)

    run.step(0, Cause.BROKEN, [0])

    assert run.exchange.finished
    run.step(0, None, [0])
    assert run.exchange.finished
    assert run.open == []


def test_a_version_that_nobody_holds_is_counted_against_whoever_answers() -> None:
    """A candidate whose only pod is gone fails its sessions, though none of them notices."""
    run = Run(mixture(), [[0, 1], [1, 0]], {"w1": {VERSIONS["e1"].sha256, VERSIONS["e2"].sha256}})
    while run.open:
        run.step(0, None, [0])

    told = dict(run.counters.versions())
    missed = told["e0", VERSIONS["e0"].sha256]
    assert (missed.requests, dict(missed.errors)) == (1, {Cause.UNREACHABLE: 1})
    assert not told["e1", VERSIONS["e1"].sha256].errors
    assert not told["e2", VERSIONS["e2"].sha256].errors
