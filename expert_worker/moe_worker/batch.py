"""Plans which waiting rows are computed together next: rows of one expert's layer, whoever asks.

Pure. Nobody waits for company: whatever waits when the computing thread is free makes the batch.
Time is counted in rows: a piece is due once as many rows have been computed as its next batch has,
since it came or was last served. So a small one passes a giant, and no giant waits for what came
after it was due.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True, slots=True)
class Piece(Generic[K, O]):
    """Rows `start` up to `start + rows` of what `owner` asked of the expert's layer `key`.

    `due` is the number of rows, of all that are ever computed, before which its turn comes.
    """

    key: K
    owner: O
    start: int
    rows: int
    due: int

    @classmethod
    def arriving(cls, key: K, owner: O, rows: int, done: int, cap: int) -> Piece[K, O]:
        """Return all rows of a group that comes when `done` rows have been computed."""
        return cls(key, owner, 0, rows, done + min(rows, cap))


def next_batch(
    line: Iterable[Piece[K, O]], cap: int, done: int
) -> tuple[list[Piece[K, O]], list[Piece[K, O]]]:
    """Return the pieces to compute now, at most `cap` rows of one key, and the line left.

    `done` rows have been computed before. The piece that is due first, of equal ones the one in
    front, chooses the key; others of that key join it, whole, as far as there is room. It alone is
    cut if it does not fit, and its rest waits anew.
    """
    batch: list[Piece[K, O]] = []
    rest: list[Piece[K, O]] = []
    room = cap
    for piece in sorted(line, key=attrgetter("due")):
        if not batch:
            batch.append(replace(piece, rows=min(piece.rows, cap)))
        elif piece.key == batch[0].key and piece.rows <= room:
            batch.append(piece)
        else:
            rest.append(piece)
            continue
        room -= batch[-1].rows
        if left := piece.rows - batch[-1].rows:
            due = done + cap + min(left, cap)
            rest.append(replace(piece, start=piece.start + cap, rows=left, due=due))
    return batch, rest
