"""Decides whether a link is silent, by the router's own ticks, and what to make of it.

A router that gets no processor does not tick either, so it does not blame its workers for its own
pauses: bytes that came meanwhile are read before the next tick counts. A worker that gets no
processor falls silent for a moment; so what is silent is only doubted at first. Where a replica
speaks, it answers instead; where none does, the silent one is waited for a little longer before
anything worse is served. And where most links are silent at once it is hardly the workers that
are gone: then all are doubted and none is given up before an attempt's own time is over.
"""

from __future__ import annotations

TICK_S = 0.025
SILENT_TICKS = 10  # 250 ms: five heartbeats
LOST_TICKS = 13  # 325 ms
DEAD_TICKS = 200  # 5 s: a half-open connection never comes back, a new one may

# With fewer links than this, "most" says nothing.
CROWD = 4


class Pulse:
    """Ticks since a link was connected, and since its last byte."""

    def __init__(self) -> None:
        self._age = self._quiet = 0

    def beat(self) -> bool:
        """Take note of bytes; returns whether the link was silent until now."""
        was_silent, self._quiet = self.silent, 0
        return was_silent

    def tick(self) -> bool:
        """Take note of a tick; returns whether the link has just become silent."""
        self._age += 1
        self._quiet += 1
        return self._quiet == SILENT_TICKS

    @property
    def silent(self) -> bool:
        return self._quiet >= SILENT_TICKS

    @property
    def overdue(self) -> bool:
        """Silent for longer than a worker that is only short of time."""
        return self._quiet >= LOST_TICKS

    @property
    def dead(self) -> bool:
        return self._quiet >= DEAD_TICKS

    @property
    def old(self) -> bool:
        """Connected for so long that a worker would have said what it serves."""
        return self._age >= DEAD_TICKS


def widespread(silent: int, links: int) -> bool:
    """Whether so many of the links are silent that it is not for their workers' sake."""
    return links >= CROWD and 2 * silent > links
