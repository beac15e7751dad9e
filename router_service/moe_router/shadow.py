"""Copies a share of what stable answered to the candidate, only to count how that fares.

Off the way of every request: what is copied has been answered and has gone out, it is little, and
it goes only to workers with nothing to do. Whatever stands in the way, the copy is dropped. No
answer to one is ever used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moe_core.table import Rung
from moe_router.counters import Counters
from moe_router.flight import Links
from moe_router.ladder import Ask, Cause, Lost
from moe_router.message import Message, Outlook, Part
from moe_router.request import Request
from moeops.v1.link_pb2 import Result

ROWS_PER_COPY = 64
COPIES_UNDER_WAY = 4
TIMEOUT_S = 1.0

# Multiplicative (Weyl) sequence of the golden ratio: any share of consecutive turns, and of every
# n-th turn too, comes close to the percentage, so that no layer is left out. Knuth, TAOCP 3, 6.4.
_GOLDEN = 2_654_435_769


@dataclass(frozen=True, slots=True)
class Trail:
    """What a request leaves behind: its rows, and which part was answered by whom."""

    request: Request
    parts: tuple[Part, ...]


def due(turn: int, percent: int) -> bool:
    """Whether this turn is among the `percent` of all turns."""
    return (turn * _GOLDEN) % 2**32 * 100 < percent * 2**32


def copies(trail: Trail, turn: int, outlook: Outlook) -> Iterator[Message]:
    """Give what is to be sent, each to an idle worker of a candidate.

    Only rows that the newest table's stable version answered, as it was asked to from the first.
    """
    for row in outlook.newest.shadowed:
        rollout, candidate = row.rollout, row.candidate
        if rollout is None or candidate is None or not due(turn, rollout.shadow_percent):
            continue
        found = [part.pairs for part in trail.parts if _answered(part, row.expert_id, outlook)]
        layer = trail.request.rows.layer
        held = outlook.routable.live.get((candidate.sha256, layer), ())
        idle = [worker for worker in held if not outlook.load.get(worker)]
        if not found or not idle:
            continue
        pairs = np.concatenate(found)[:ROWS_PER_COPY]
        worker = idle[turn % len(idle)]
        ask = Ask(None, row.expert_id, candidate.sha256, (worker,))
        part = Part(Lost(row.expert_id, candidate), ask, pairs)
        rows = trail.request.rows.hidden[pairs // trail.request.weights.shape[1]]
        yield Message(worker, layer, (part,), pairs, rows, outlook.now_s, TIMEOUT_S)


def _answered(part: Part, expert_id: str, outlook: Outlook) -> bool:
    ask, stable = part.ask, outlook.newest.stable(expert_id)
    return (
        stable is not None
        and part.lost.expert_id == ask.expert_id == expert_id
        and ask.sha256 == stable.sha256
        and ask.rung in (None, Rung.REPLICA)
        and not part.lost.forced
    )


class Shadows:
    """The copies under way. Everything happens on one event loop."""

    def __init__(self, links: Links, counters: Counters) -> None:
        self._links, self._counters = links, counters
        self._turn = 0
        self._under_way = 0

    def follow(self, trail: Trail, outlook: Outlook) -> None:
        """Send the copies that an answered request gives, where there is room for them."""
        self._turn += 1
        for message in copies(trail, self._turn, outlook):
            if self._under_way < COPIES_UNDER_WAY and self._links.send(message, self):
                self._under_way += 1

    def answered(self, message: Message, result: Result, body: memoryview) -> None:
        self._under_way -= 1
        groups, whole = result.groups, len(body) == message.rows.nbytes
        usable = len(groups) == 1 and not groups[0].HasField("failure") and whole
        self._counters.shadowed(message.parts[0], groups[0] if usable else None)

    def failed(self, message: Message, cause: Cause) -> None:
        self._under_way -= 1
        self._counters.shadowed(message.parts[0], None)

    def late(self, message: Message) -> bool:
        return False  # nobody waits for a copy
