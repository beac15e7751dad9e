"""Which waiting rows are computed together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_worker.batch import Piece, next_batch

Line = list[Piece[str, int]]


def piece(key: str, owner: int, rows: int, start: int = 0) -> Piece[str, int]:
    return Piece(key, owner, start, rows)


@pytest.mark.parametrize(
    ("line", "batch", "rest"),
    [
        pytest.param([], [], [], id="nothing waits"),
        pytest.param([piece("a", 1, 3)], [piece("a", 1, 3)], [], id="one alone does not wait"),
        pytest.param(
            [piece("a", 1, 3), piece("b", 2, 1), piece("a", 3, 2)],
            [piece("a", 1, 3), piece("a", 3, 2)],
            [piece("b", 2, 1)],
            id="rows of one key go together",
        ),
        pytest.param(
            [piece("a", 1, 6), piece("a", 2, 6), piece("b", 3, 1)],
            [piece("a", 1, 6), piece("a", 2, 4)],
            [piece("b", 3, 1), piece("a", 2, 2, start=4)],
            id="what does not fit is cut off and goes to the end",
        ),
        pytest.param(
            [piece("a", 1, 25, start=5), piece("b", 2, 1)],
            [piece("a", 1, 10, start=5)],
            [piece("b", 2, 1), piece("a", 1, 15, start=15)],
            id="a giant lets others pass",
        ),
        pytest.param(
            [piece("a", 1, 10), piece("a", 2, 1)],
            [piece("a", 1, 10)],
            [piece("a", 2, 1)],
            id="a full batch takes no more",
        ),
    ],
)
def test_next_batch(line: Line, batch: Line, rest: Line) -> None:
    assert next_batch(line, 10) == (batch, rest)


pieces = st.builds(
    lambda key, rows: (key, rows), st.sampled_from("abc"), st.integers(min_value=1, max_value=40)
)


@given(st.lists(pieces, max_size=30), st.integers(min_value=1, max_value=16))
def test_every_row_is_computed_once_beside_its_own_kind(
    asked: list[tuple[str, int]], cap: int
) -> None:
    line = [piece(key, owner, rows) for owner, (key, rows) in enumerate(asked)]
    seen: list[tuple[int, int]] = []
    rounds = 0
    while line:
        front = line[0]
        batch, line = next_batch(line, cap)
        rounds += 1
        assert batch[0].owner == front.owner
        assert {p.key for p in batch} == {front.key}
        assert 0 < sum(p.rows for p in batch) <= cap
        seen += [(p.owner, row) for p in batch for row in range(p.start, p.start + p.rows)]
    assert sorted(seen) == [(o, r) for o, (_, rows) in enumerate(asked) for r in range(rows)]
    assert rounds <= sum(-(-rows // cap) for _, rows in asked)


@given(st.integers(1, 10_000), st.integers(1, 16))
def test_a_small_one_behind_a_giant_waits_for_one_batch(giant: int, cap: int) -> None:
    _, line = next_batch([piece("a", 1, giant), piece("b", 2, 1)], cap)
    batch, _ = next_batch(line, cap)
    assert batch == [piece("b", 2, 1)]
