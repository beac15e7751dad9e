"""Plans which waiting rows are computed together next: rows of one expert's layer, whoever asks.

Pure. Nobody waits for company: whatever waits when the computing thread is free makes the batch.
Whose turn it is is decided among sizes, each power of two of rows being one: start-time fair
queueing (Goyal, Vin, Cheng 1996) gives those that wait equal shares of the rows computed. So a
small piece waits for the batch that is being computed and hardly for more, however many large ones
there are, and no flood of small ones keeps a large one away.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
O = TypeVar("O")  # noqa: E741

# So many rows take hardly longer than one: most of that time weights are on their way from memory.
CHEAP_ROWS: Final = 16


@dataclass(frozen=True, slots=True)
class Piece(Generic[K, O]):
    """Rows `start` up to `start + rows` of what `owner` asked of the expert's layer `key`.

    It `begins` when so many rows of each size that waits have had their turn.
    """

    key: K
    owner: O
    start: int
    rows: int
    begins: int


class Line(Generic[K, O]):
    """What waits. A batch has at most `cap` rows."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._pieces: list[Piece[K, O]] = []
        self._now = 0  # where the piece began that had its turn last
        self._ends: dict[int, int] = {}  # by size, where the last one of it ends

    def __len__(self) -> int:
        return len(self._pieces)

    def arrive(self, key: K, owner: O, rows: int, start: int = 0) -> None:
        """Put rows in line that come now."""
        batch = min(rows, self._cap)
        size = batch.bit_length()
        begins = max(self._now, self._ends.get(size, 0))
        self._ends[size] = begins + batch
        self._pieces.append(Piece(key, owner, start, rows, begins))

    def keep(self, wanted: Callable[[O], bool]) -> None:
        """Forget the pieces whose owner is not wanted any more."""
        self._pieces = [piece for piece in self._pieces if wanted(piece.owner)]

    def next_batch(self) -> list[Piece[K, O]]:
        """Take out the pieces to compute now, at most `cap` rows of one key; none if nobody waits.

        The piece that begins first, of equal ones the smaller, of these the one in front, chooses
        the key. Others of that key join it, whole, as far as there is room, but none that is larger
        and dear. It alone is cut if it does not fit, and its rest comes anew.
        """
        line = sorted(self._pieces, key=lambda piece: (piece.begins, piece.rows))
        if not line:
            return []
        first, self._now = line[0], line[0].begins
        batch = [replace(first, rows=min(first.rows, self._cap))]
        room, dear = self._cap - batch[0].rows, max(first.rows, CHEAP_ROWS)
        self._pieces = []
        for piece in line[1:]:
            if piece.key == first.key and piece.rows <= min(room, dear):
                batch.append(piece)
                room -= piece.rows
            else:
                self._pieces.append(piece)
        if left := first.rows - batch[0].rows:
            self.arrive(first.key, first.owner, left, first.start + self._cap)
        return batch
