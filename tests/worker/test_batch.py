"""Which waiting rows are computed together, and whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_worker.batch import CHEAP_ROWS, Line, Piece

Asked = tuple[str, int]  # a key and a number of rows


def line_of(asked: list[Asked], cap: int) -> Line[str, int]:
    """Return a line of pieces whose owners are numbered."""
    line: Line[str, int] = Line(cap)
    for owner, (key, rows) in enumerate(asked):
        line.arrive(key, owner, rows)
    return line


def computed(batch: list[Piece[str, int]]) -> list[tuple[int, int, int]]:
    """Return the owner, first row and rows of each piece."""
    return [(piece.owner, piece.start, piece.rows) for piece in batch]


@pytest.mark.parametrize(
    ("asked", "batches"),
    [
        pytest.param([], [[]], id="nothing waits"),
        pytest.param([("a", 3)], [[(0, 0, 3)], []], id="one alone does not wait"),
        pytest.param(
            [("a", 3), ("b", 3), ("a", 2)],
            [[(0, 0, 3), (2, 0, 2)], [(1, 0, 3)]],
            id="rows of one key go together",
        ),
        pytest.param(
            [("a", 6), ("a", 6), ("a", 4)],
            [[(0, 0, 6), (2, 0, 4)], [(1, 0, 6)]],
            id="who joins does so whole",
        ),
        pytest.param(
            [("a", 9), ("b", 1)], [[(1, 0, 1)], [(0, 0, 9)]], id="of those that come the smaller"
        ),
        pytest.param(
            [("a", 25)],
            [[(0, 0, 10)], [(0, 10, 10)], [(0, 20, 5)], []],
            id="a giant is cut",
        ),
        pytest.param(
            [("a", 20), ("b", 20)],
            [[(0, 0, 10)], [(1, 0, 10)], [(0, 10, 10)], [(1, 10, 10)], []],
            id="giants take turns",
        ),
        pytest.param([("a", 10), ("a", 9)], [[(0, 0, 10)], [(1, 0, 9)]], id="no room, no company"),
    ],
)
def test_batches(asked: list[Asked], batches: list[list[tuple[int, int, int]]]) -> None:
    line = line_of(asked, 10)
    assert [computed(line.next_batch()) for _ in batches] == batches


def test_a_small_one_takes_no_large_one_along() -> None:
    """It would wait for all of its rows; a cheap one it takes."""
    line = line_of([("a", 1), ("a", CHEAP_ROWS + 1), ("a", CHEAP_ROWS)], 256)
    assert computed(line.next_batch()) == [(0, 0, 1), (2, 0, CHEAP_ROWS)]
    assert computed(line.next_batch()) == [(1, 0, CHEAP_ROWS + 1)]


def test_whose_owner_is_not_wanted_is_forgotten() -> None:
    line = line_of([("a", 1), ("b", 1)], 10)
    line.keep(lambda owner: owner == 1)
    assert len(line) == 1
    assert computed(line.next_batch()) == [(1, 0, 1)]


asked_ = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=30)


@given(asked_, st.integers(min_value=1, max_value=16))
def test_every_row_is_computed_once_beside_its_own_kind(asked: list[Asked], cap: int) -> None:
    line, seen, rounds = line_of(asked, cap), [], 0
    while batch := line.next_batch():
        rounds += 1
        assert {piece.key for piece in batch} == {asked[batch[0].owner][0]}
        assert sum(piece.rows for piece in batch) <= cap
        for owner, start, rows in computed(batch):
            seen += [(owner, row) for row in range(start, start + rows)]
    assert sorted(seen) == [(o, r) for o, (_, rows) in enumerate(asked) for r in range(rows)]
    assert rounds <= sum(-(-rows // cap) for _, rows in asked)
    assert len(line) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(17, 256)),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 60),
    st.integers(17, 256),
)
def test_a_small_one_that_comes_is_next(
    giants: list[tuple[str, int, int]], batches: int, cap: int
) -> None:
    """However many large ones wait, of one request or of many, and for however long.

    Their rests are large, too: a small rest that was there before is a small one that came before.
    """
    line = line_of([(key, whole * cap + min(rest, cap)) for key, whole, rest in giants], cap)
    for _ in range(batches):
        line.next_batch()
    line.arrive("d", -1, 1)
    assert line.next_batch()[0].owner == -1


@given(st.integers(17, 500), st.integers(1, 8), st.integers(17, 64))
def test_under_a_flood_of_small_ones_a_giant_gets_half(giant: int, flood: int, cap: int) -> None:
    """More of them come than there is time for."""
    line: Line[str, int] = Line(cap)
    line.arrive("a", 0, giant)
    rows = {0: 0, 1: 0}
    while rows[0] < giant:
        for _ in range(flood):
            line.arrive("b", 1, 1)
        batch = line.next_batch()
        rows[batch[0].owner] += sum(piece.rows for piece in batch)
    assert rows[1] <= giant + 2 * cap
