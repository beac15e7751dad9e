"""What a request's sequences are told with its answer: tokens, marks, versions that they lost.

Pure but for the marks, which remember what was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moe_router.marks import Marks
from moe_router.sequences import PinsOf
from moe_router.sequences import Sequence as Rows
from moe_router.sessions import Start, Taken
from moe_router.settle import Outcome
from moe_router.view import View


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one sequence of an answered request."""

    token: bytes
    outcome: Outcome
    degraded: bool
    repinned: tuple[Taken, ...]


def fates(
    sequences: Sequence[Rows],
    outcomes: Sequence[Outcome],
    views: tuple[View, View],
    pins: PinsOf,
    marks: Marks,
) -> tuple[tuple[Fate, ...], int]:
    """Return the fate of each sequence, and the epoch of the table that says so.

    `views` are the table that the request was served by and the newest one. What that revoked
    meanwhile is told with this very answer, which may be the last of a call, and by its epoch:
    stable has answered for it already.
    """
    view, newest = views
    found, epoch = [], view.table.epoch
    for sequence, outcome in zip(sequences, outcomes, strict=True):
        session = sequence.session
        began = sequence.start or Start(view.table.uid, view.table.epoch)
        # What begins now lost nothing before.
        taken = sequence.pins.taken if sequence.start is not None else ()
        if newest is not view and began.known_to(newest):
            meanwhile = _revoked(sequence, view, newest, pins(newest, session, began).taken)
            taken += meanwhile
            epoch = newest.table.epoch if meanwhile else epoch
        repinned = marks.tell(session, taken)
        token = sequence.token or began.to_token(session)
        found.append(Fate(token, outcome, marks.degraded(session), repinned))
    return tuple(found), epoch


def _revoked(sequence: Rows, view: View, newest: View, taken: Sequence[Taken]) -> tuple[Taken, ...]:
    """Return those of the experts taken whose version, by its pins, the newest table revokes.

    Not those whose version is only gone: it may have answered these rows, and the next answer
    tells of it. Nor gates: of this layer's the request began anew.
    """
    found = []
    for one in taken:
        row = None if one.gate else view.experts.get(one.name)
        version = None if row is None else sequence.pins.of(row)
        if version is not None and newest.revokes(one.name, version.sha256):
            found.append(one)
    return tuple(found)
