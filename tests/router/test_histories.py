"""Whole histories of tables, any number of routers: every one says the same of every session.

A model of the operator makes tables as it would: rollouts that rise, are promoted, cool down, are
taken back and begin again. Sessions begin in any epoch, with any router.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.pins import pinned
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_router.engine import Engine, Limits
from moe_router.said import Said
from moe_router.sessions import pin
from moe_router.tables import Tables
from moe_router.view import View
from moeops.v1.router_pb2 import SequenceRows
from tests.fakes.links import FakeLinks, FakeWorker
from tests.router.bench import Gates
from tests.support.dispatching import dispatch_request
from tests.support.tables import expert, gate, table, to_object, version

FIRST = version("v0")
FACTORS = {FIRST.sha256: 1.0} | {version(f"v{n}").sha256: 1.0 + n for n in range(1, 30)}
SESSIONS = [f"s{n}" for n in range(24)]


def begin(row: ExpertRow, epoch: int, number: int) -> ExpertRow:
    target = version(f"v{number}")
    rollout = Rollout(
        number, target, 0, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "", f"salt{number}", ()
    )
    return replace(row, candidate=target, previous=None, rollout=rollout)


def weigh(row: ExpertRow, epoch: int, percent: int, outcome: Outcome) -> Rollout:
    assert row.rollout is not None
    before = row.rollout.weights
    if outcome is Outcome.PROMOTED and not before:
        before = (WeightSince(0, 0),)
    if outcome is Outcome.ROLLED_BACK and not before:
        return replace(row.rollout, outcome=outcome)
    weights = (*before, WeightSince(epoch, percent))
    return replace(row.rollout, weights=weights, outcome=outcome)


def advance(row: ExpertRow, epoch: int, act: str, amount: int) -> ExpertRow:
    """Return the row of the next epoch; an act that does not apply changes nothing."""
    target = None if row.rollout is None else row.rollout.target
    if row.candidate is not None and row.rollout is not None:
        if act == "raise" and amount > row.rollout.weight:
            return replace(row, rollout=weigh(row, epoch, amount, Outcome.PROGRESSING))
        if act == "promote":
            ended = weigh(row, epoch, 100, Outcome.PROMOTED)
            return replace(
                row, stable=row.candidate, previous=row.stable, candidate=None, rollout=ended
            )
        if act == "take back" and target is not None:
            ended = weigh(row, epoch, 0, Outcome.ROLLED_BACK)
            revoked = (*row.revoked, target.sha256)
            return replace(row, candidate=None, revoked=revoked, rollout=ended)
    elif row.previous is not None and row.stable is not None:
        if act == "cool":
            return replace(row, previous=None)
        if act == "take back":
            ended = weigh(row, epoch, 0, Outcome.ROLLED_BACK)
            revoked = (*row.revoked, row.stable.sha256)
            return replace(row, stable=row.previous, previous=None, revoked=revoked, rollout=ended)
    elif act == "begin":
        return begin(row, epoch, epoch)
    return row


acts = st.tuples(
    st.sampled_from(["begin", "raise", "raise", "promote", "take back", "cool"]),
    st.integers(1, 99),
)
histories = st.lists(acts, min_size=1, max_size=25)


def tables(acted: list[tuple[str, int]]) -> list[Table]:
    rows = [expert("e", FIRST)]
    for number, (act, amount) in enumerate([("begin", 0), *acted]):
        rows.append(advance(rows[-1], number + 2, act, amount))
    return [
        table([row], [gate(["e"], top_k=1)], hidden_size=2, dtype="Float32", epoch=number + 1)
        for number, row in enumerate(rows)
    ]


@settings(max_examples=200, deadline=None)
@given(histories, st.sampled_from(SESSIONS), st.integers(0, 10))
def test_only_a_version_revoked_or_gone_moves_a_session(
    acted: list[tuple[str, int]], session: str, began: int
) -> None:
    history = tables(acted)[min(began, len(acted)) :]
    epoch = history[0].epoch
    had: Version | None = None
    for content in history:
        (row,) = content.experts
        has = pinned(row, session, epoch)

        assert has in row.named
        assert has is not None
        assert has.sha256 not in row.revoked
        if had is not None and has != had:
            assert had.sha256 in row.revoked or had not in row.named
        had = has


@settings(max_examples=100, deadline=None)
@given(histories, st.sampled_from(SESSIONS), st.integers(0, 10))
def test_a_session_that_is_moved_is_told(
    acted: list[tuple[str, int]], session: str, began: int
) -> None:
    history = tables(acted)[min(began, len(acted)) :]
    epoch = history[0].epoch
    for before, after in pairwise(history):
        old, new = (pinned(t.experts[0], session, epoch) for t in (before, after))
        taken = pin(View.of(after), session, epoch).taken
        if old != new:
            assert [one.name for one in taken] == ["e"]


async def ask(router: Engine, content: Table, session: str, token: bytes) -> tuple[float, bytes]:
    """Return the factor of the version that answered, and the session's token."""
    sequence = SequenceRows(session=session, rows=1, start_token=token)
    request = dispatch_request(
        content, [[0]], weights=[[1.0]], hidden=[[1.0, 1.0]], sessions=[sequence]
    )
    answer = await router.dispatch(request)
    return float(answer.hidden[0, 0]), answer.fates[0].token


@settings(max_examples=40, deadline=None)
@given(
    histories,
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("srt")), min_size=5, max_size=40),
    st.randoms(use_true_random=False),
)
async def test_any_router_with_any_newer_table_says_the_same(
    acted: list[tuple[str, int]], said: list[tuple[int, str]], random: Random
) -> None:
    history = tables(acted)
    links = FakeLinks({"w": FakeWorker(FACTORS)})
    clock = float

    def start() -> tuple[Engine, Tables]:
        known = Tables("tiny", clock)
        known.offer(Said.of(to_object(history[0])))
        return Engine(known, links, Gates({}), clock, Limits()), known

    routers = [start() for _ in range(3)]
    tokens: dict[str, bytes] = {}
    for at, kind in said:
        if kind == "r":
            routers[at] = start()
        if kind == "t":
            routers[at][1].offer(Said.of(to_object(random.choice(history))))
        session = random.choice(SESSIONS)
        began = int(tokens[session].split(b":")[2]) if session in tokens else 0
        router, known = routers[at]
        if known.view is None or known.view.table.epoch < began:
            known.offer(Said.of(to_object(history[began - 1])))
        assert known.view is not None
        content = known.view.table
        factor, token = await ask(router, content, session, tokens.get(session, b""))

        assert tokens.setdefault(session, token) == token
        expected = pinned(content.experts[0], session, began or content.epoch)
        assert expected is not None
        assert factor == FACTORS[expected.sha256]
