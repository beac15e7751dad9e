"""Gates on trial in the router: who chose for which rows, what is counted, and the shadow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_artifacts.artifact import GateLayer
from moe_core.rows import GateRow
from moe_router.application import Batch
from moe_router.gate_shadow import Sample, jaccard, sample, score
from moe_router.probability import divergence_bits, entropy_bits
from moe_router.refusal import Code
from moe_router.request import parse_dispatch
from moe_router.sessions import Start, Taken
from moe_router.view import View
from moeops.v1.router_pb2 import RouteRequest, SequenceRows
from moeops.v1.types_pb2 import DTYPE_FLOAT32
from tests.fakes.links import FakeWorker
from tests.router.bench import Bench, values
from tests.router.gated import (
    CANDIDATE,
    EXPERTS,
    G1,
    G2,
    STABLE,
    gated,
    promoted,
    session_on,
    taken_back,
    tried,
)
from tests.support.dispatching import dispatch_request
from tests.support.tables import UID

Floats = npt.NDArray[np.float32]

FACTORS = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
ON_STABLE, ON_CANDIDATE = session_on(False), session_on(True)


def house(row: GateRow | None = None, **options: Any) -> Bench:
    content = gated(tried() if row is None else row)
    worker = FakeWorker({EXPERTS[name].sha256: factor for name, factor in FACTORS.items()})
    return Bench(content, {"w": worker}, **options)


async def test_each_row_goes_to_the_experts_of_its_sessions_variant() -> None:
    """The candidate's numbers 0, 1, 2 are b, a and d; it chooses one, and leaves a slot empty."""
    answer = await house().dispatch(
        [[0, 1], [0, -1], [2, -1]],
        weights=[[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]],
        gate_sha256=G1.sha256,
        sessions=[
            SequenceRows(session=ON_STABLE, rows=1),
            SequenceRows(session=ON_CANDIDATE, rows=2, gate_sha256=G2.sha256),
        ],
    )
    assert values(answer) == [1.5, 2.0, 8.0]


@pytest.mark.parametrize(
    ("row", "session", "sha256", "words"),
    [
        (tried(), ON_STABLE, G2.sha256, "version 'gate-v2'; layer 0 is served with gate 'gate'"),
        (tried(), ON_CANDIDATE, G1.sha256, f"version 'gate-v2', which is {G2.sha256}"),
        (taken_back(), ON_CANDIDATE, G2.sha256, "which was taken back"),
        (promoted(kept=False), ON_STABLE, G1.sha256, f"'gate-v2', which is {G2.sha256}"),
    ],
)
async def test_rows_that_another_variant_chose_are_refused(
    row: GateRow, session: str, sha256: str, words: str
) -> None:
    refused = await house(row).refused(
        [[0, 1]], gate_sha256=sha256, sessions=[SequenceRows(session=session, rows=1)]
    )
    assert refused.code is Code.FAILED_PRECONDITION
    assert words in str(refused)


def began(session: str) -> SequenceRows:
    """Return a row of a session that began before the candidate was taken back."""
    return SequenceRows(session=session, rows=1, start_token=Start(UID, 1).to_token(session))


def back_when_asked(bench: Bench) -> None:
    """Have the candidate taken back when workers are asked for the first time."""

    def act() -> None:
        bench.links.before = lambda: None
        bench.offer(gated(taken_back(), epoch=2))

    bench.links.before = act


async def test_rows_whose_gate_is_taken_back_under_way_are_refused_like_any_that_come() -> None:
    """Stable answers for experts that went with it: the whole would be neither pair's."""
    bench = house()
    back_when_asked(bench)
    sessions = [began(ON_CANDIDATE)]
    refused = await bench.refused([[0]], gate_sha256=G2.sha256, sessions=sessions)
    assert refused.code is Code.FAILED_PRECONDITION
    assert "which was taken back" in str(refused)
    assert bench.engine.counters.gates.of("gate", G2.sha256).requests == 0


async def test_a_gate_that_is_taken_back_under_way_chooses_for_nobody() -> None:
    """Where the router applies the gate it does so once more, and tells the session."""
    weights = np.eye(4, dtype=np.float32)[:3]
    bench = house(gates={G1.sha256: weights, G2.sha256: weights})
    back_when_asked(bench)
    answer = await bench.engine.route(
        RouteRequest(
            request_id=1,
            mixture="tiny",
            dtype=DTYPE_FLOAT32,
            hidden_size=4,
            sequences=[began(ON_CANDIDATE)],
            hidden=np.ones((1, 4), np.float32).tobytes(),
        )
    )
    assert values(answer) == [0.5 * FACTORS["a"] + 0.5 * FACTORS["b"]]
    assert answer.epoch == 2
    assert answer.fates[0].repinned == (Taken("gate", 2, gate=True),)
    assert bench.engine.counters.requests == 1


async def test_requests_and_pairs_are_counted_for_the_variant_of_their_sessions() -> None:
    bench = house()
    for _ in range(3):
        await bench.dispatch(
            [[0, 1], [2, 1]],
            gate_sha256=G1.sha256,
            sessions=[SequenceRows(session=ON_STABLE, rows=2)],
        )
    layer = bench.engine.counters.gates.of("gate", G1.sha256).layers[0]
    assert layer.rows == 6
    assert layer.pairs.tolist() == [3, 6, 3]


def test_only_rows_of_sessions_on_stable_are_looked_at() -> None:
    view = View.of(gated(tried(shadow_percent=100)))
    hidden = np.arange(12, dtype=np.float32).reshape(3, 4)
    message = dispatch_request(
        view.table,
        [[0, 1], [0, -1], [2, -1]],
        hidden=hidden,
        weights=[[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]],
        gate_sha256=G1.sha256,
        sessions=[
            SequenceRows(session=ON_STABLE, rows=1),
            SequenceRows(session=ON_CANDIDATE, rows=2, gate_sha256=G2.sha256),
        ],
    )
    seen = sample(parse_dispatch(message, view), view, 1)
    assert seen is not None
    assert seen.hidden.tolist() == hidden[:1].tolist()


@given(st.integers(0, 10_000))
def test_a_shadow_tells_what_a_plain_loop_tells(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 12))
    hidden = random.normal(size=(rows, 4)).astype(np.float32)
    base, other = (random.normal(size=(3, 4)).astype(np.float32) for _ in range(2))
    found = score(
        Sample("gate", 0, STABLE, CANDIDATE, hidden, (Batch(rows),)),
        GateLayer(base),
        GateLayer(other),
    )

    def best(
        weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], row: int, k: int
    ) -> list[int]:
        logits = weight @ hidden[row]
        return sorted(range(3), key=lambda e: -logits[e])[:k]

    overlap, pairs, base_pairs = 0.0, [0, 0, 0], [0, 0, 0]
    for row in range(rows):
        mine, theirs = best(base, row, 2), best(other, row, 1)
        names = {STABLE.experts[e] for e in mine}
        others = {CANDIDATE.experts[e] for e in theirs}
        overlap += len(names & others) / len(names | others)
        for e in mine:
            base_pairs[e] += 1
        for e in theirs:
            pairs[e] += 1
    assert found.rows == rows
    assert found.overlap == pytest.approx(overlap)
    assert found.pairs.tolist() == pairs
    assert found.base_pairs.tolist() == base_pairs
    logits = hidden @ other.T
    assert found.entropy == pytest.approx(sum(plain_entropy(row) for row in logits), abs=1e-3)


def plain_entropy(logits: Floats) -> float:
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
    return -float(sum(share * np.log2(share) for share in shares))


def test_divergence_is_nothing_of_the_same_and_bits_of_another() -> None:
    even, sure = np.zeros((1, 2)), np.array([[np.log(3.0), 0.0]])
    assert divergence_bits(sure, sure).tolist() == [0.0]
    assert divergence_bits(even, sure)[0] == pytest.approx(0.5 * np.log2(4 / 3))
    assert entropy_bits(even)[0] == pytest.approx(1.0)
    assert jaccard(np.array([[0, 1]], np.int32), np.array([[1, -1]], np.int32), 3)[0] == 0.5


async def test_what_is_tried_again_is_looked_at_anew() -> None:
    trying = tried(shadow_percent=100)
    weights = np.eye(4, dtype=np.float32)[:3]
    bench = house(trying, gates={G1.sha256: weights, G2.sha256: weights})
    bench.tables.on_change(bench.engine.scorings.keep)
    asked = {"gate_sha256": G1.sha256, "sessions": [SequenceRows(session=ON_STABLE, rows=1)]}
    bench.engine.follow(await bench.dispatch([[0, 1]], **asked))
    await bench.settle()
    assert [scored.rows for _, scored in bench.engine.scorings.sums()] == [1]
    bench.offer(gated(taken_back(), epoch=2))
    assert list(bench.engine.scorings.sums()) == []
