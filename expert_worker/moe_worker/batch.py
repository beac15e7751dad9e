"""Plans which waiting rows are computed together next: rows of one expert's layer, whoever asks.

Pure. Nobody waits for company: whatever waits when the computing thread is free makes the batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True, slots=True)
class Piece(Generic[K, O]):
    """Rows `start` up to `start + rows` of what `owner` asked of the expert's layer `key`."""

    key: K
    owner: O
    start: int
    rows: int


def next_batch(
    line: Sequence[Piece[K, O]], cap: int
) -> tuple[list[Piece[K, O]], list[Piece[K, O]]]:
    """Return the pieces to compute now, at most `cap` rows of one key, and the line left.

    The piece in front chooses the key; others of that key join it in order. What is cut off one
    that does not fit goes to the end of the line, so that a giant never stalls the small.
    """
    batch: list[Piece[K, O]] = []
    rest: list[Piece[K, O]] = []
    cut_off: list[Piece[K, O]] = []
    room = cap
    for piece in line:
        if piece.key != line[0].key or room == 0:
            rest.append(piece)
            continue
        taken = min(piece.rows, room)
        room -= taken
        batch.append(replace(piece, rows=taken))
        if taken < piece.rows:
            left = piece.rows - taken
            cut_off.append(replace(piece, start=piece.start + taken, rows=left))
    return batch, rest + cut_off
