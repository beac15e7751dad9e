"""Which waiting rows are computed together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_worker.batch import Piece, next_batch

Line = list[Piece[str, int]]


def piece(key: str, owner: int, rows: int, start: int = 0, due: int = 0) -> Piece[str, int]:
    return Piece(key, owner, start, rows, due)


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
            [piece("a", 1, 6), piece("a", 2, 6), piece("a", 3, 4)],
            [piece("a", 1, 6), piece("a", 3, 4)],
            [piece("a", 2, 6)],
            id="who joins does so whole",
        ),
        pytest.param(
            [piece("a", 1, 9, due=9), piece("b", 2, 1, due=3)],
            [piece("b", 2, 1, due=3)],
            [piece("a", 1, 9, due=9)],
            id="who is due first begins",
        ),
        pytest.param(
            [piece("a", 1, 25, start=5), piece("b", 2, 1)],
            [piece("a", 1, 10, start=5)],
            [piece("a", 1, 15, start=15, due=120), piece("b", 2, 1)],
            id="the rest of a giant waits for as many rows as its next batch has",
        ),
        pytest.param(
            [piece("a", 1, 13)],
            [piece("a", 1, 10)],
            [piece("a", 1, 3, start=10, due=113)],
            id="and a small rest for fewer",
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
    assert next_batch(line, 10, 100) == (batch, rest)


def test_a_piece_that_arrives_is_due_after_as_many_rows_as_its_first_batch_has() -> None:
    assert Piece.arriving("a", 1, 3, 100, 10) == piece("a", 1, 3, due=103)
    assert Piece.arriving("a", 1, 30, 100, 10) == piece("a", 1, 30, due=110)


pieces = st.builds(
    lambda key, rows: (key, rows), st.sampled_from("abc"), st.integers(min_value=1, max_value=40)
)


@given(st.lists(pieces, max_size=30), st.integers(min_value=1, max_value=16))
def test_every_row_is_computed_once_beside_its_own_kind(
    asked: list[tuple[str, int]], cap: int
) -> None:
    line = [Piece.arriving(key, owner, rows, 0, cap) for owner, (key, rows) in enumerate(asked)]
    seen: list[tuple[int, int]] = []
    rounds = done = 0
    while line:
        front = min(line, key=lambda piece: piece.due)
        batch, line = next_batch(line, cap, done)
        rounds += 1
        assert batch[0].owner == front.owner
        assert {p.key for p in batch} == {front.key}
        assert 0 < sum(p.rows for p in batch) <= cap
        done += sum(p.rows for p in batch)
        seen += [(p.owner, row) for p in batch for row in range(p.start, p.start + p.rows)]
    assert sorted(seen) == [(o, r) for o, (_, rows) in enumerate(asked) for r in range(rows)]
    assert rounds <= sum(-(-rows // cap) for _, rows in asked)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=5), st.integers(1, 16))
def test_a_small_one_that_comes_waits_for_one_batch(giants: list[int], cap: int) -> None:
    """However many giants wait, unless so many rows were computed that their turn has come."""
    line = [Piece.arriving("a", owner, rows, 0, cap) for owner, rows in enumerate(giants)]
    _, line = next_batch(line, cap, 0)
    batch, _ = next_batch([*line, Piece.arriving("b", 9, 1, 0, cap)], cap, cap)
    assert batch[0].owner == 9 or cap == 1


@given(st.integers(1, 500), st.integers(1, 8))
def test_under_a_flood_of_small_ones_a_giant_gets_half(giant: int, flood: int) -> None:
    """They ask for half of the rows that there is time for."""
    cap = 2 * flood
    line = [Piece.arriving("a", 0, giant, 0, cap)]
    done = served = small = 0
    while any(piece.owner == 0 for piece in line):
        line += [Piece.arriving("b", 1, 1, done, cap) for _ in range(flood)]
        batch, line = next_batch(line, cap, done)
        rows = sum(piece.rows for piece in batch)
        done += rows
        if batch[0].owner == 0:
            served += rows
        else:
            small += rows
    assert served == giant
    assert small <= giant + 2 * cap
