"""The pairs of one request that wait for experts that nobody holds, until somebody does.

Pure bookkeeping: when to wait is decided in `ladder`, and what has waited is placed by the
exchange.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from moe_router.cold import Version
from moe_router.colds import End
from moe_router.ladder import Lost, Surroundings, Wait, waits
from moe_router.plan import Pairs
from moe_router.refusal import Refused


class Tally(Protocol):
    """Counts rows that nobody could be asked for, and those that wait for that to change."""

    def missed(self, expert_id: str, sha256: str, now_s: float) -> None: ...

    def waits(self, version: Version, rows: int, now_s: float) -> Refused | None:
        """Have rows wait for a version, or say why they may not."""
        ...

    def waited(self, version: Version, rows: int, end: End, waited_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Cold:
    lost: Lost
    pairs: Pairs
    version: Version
    since_s: float
    until_s: float


class ColdPairs:
    """Those of one request."""

    def __init__(self) -> None:
        self._waiting: list[_Cold] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def until_s(self) -> float | None:
        """When the first of them is to be placed elsewhere; None where nothing waits."""
        return min((one.until_s for one in self._waiting), default=None)

    def enter(
        self, lost: Lost, pairs: Pairs, wait: Wait, now_s: float, tally: Tally
    ) -> Refused | None:
        """Have pairs wait, or return why they may not."""
        assert lost.pinned is not None
        version = lost.expert_id, lost.pinned.sha256
        refused = tally.waits(version, len(pairs), now_s)
        if refused is None:
            self._waiting.append(_Cold(lost, pairs, version, now_s, wait.until_s))
        return refused

    def look(self, around: Surroundings, now_s: float, tally: Tally) -> list[tuple[Lost, Pairs]]:
        """Take out what is to be placed: somebody holds it now, or its time is up."""
        before, self._waiting, found = self._waiting, [], []
        for one in before:
            if (wait := waits(one.lost, around)) is not None:
                self._waiting.append(replace(one, until_s=wait.until_s))
                continue
            held = around.routable.for_artifact(one.version[1], around.layer)
            tally.waited(
                one.version,
                len(one.pairs),
                End.SERVED if held else End.CLIMBED,
                now_s - one.since_s,
            )
            found.append((one.lost, one.pairs))
        count_missed((lost for lost, _ in found), around, now_s, tally)
        return found

    def abandon(self, now_s: float, tally: Tally) -> None:
        """Take it that nobody waits for an answer any more."""
        for one in self._waiting:
            tally.waited(one.version, len(one.pairs), End.ABANDONED, now_s - one.since_s)
        self._waiting = []


def count_missed(lost: Iterable[Lost], around: Surroundings, now_s: float, tally: Tally) -> None:
    """Count against a version that sessions are on and nobody holds, whoever then answers.

    What waits for it is not lost to it yet.
    """
    for one in lost:
        if one.pinned is None or one.forced:
            continue
        expert_id, sha256 = one.expert_id, one.pinned.sha256
        revoked = around.newest.revokes(expert_id, sha256)
        if revoked or around.routable.for_artifact(sha256, around.layer):
            continue
        if waits(one, around) is None:
            tally.missed(expert_id, sha256, now_s)
