"""What gates chose, as routers counted it: a reading, the difference of two, the sum of several.

Counters only grow while a router runs, so what came between two readings is their difference; of
a router that was started in between it is all that it has counted since. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from moe_core.worker_load import WorkerLoad


@dataclass(frozen=True, slots=True)
class Of:
    """One layer of one version of a gate; in the shadow it only scores rows that others serve.

    `context` where it is only of the rows that say that they are about this.
    """

    gate: str
    sha256: str
    layer: int
    shadow: bool = False
    context: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """`pairs` (E,) are (row, slot) pairs by expert, in the order of the version's list.

    `overflow_pairs` are those beyond a capacity of 1.2·k·T/E in a batch; `entropy_sum` is that of
    the gate's probabilities in bits, over the `scored_rows` for which a router applied the gate.
    `groups` are the pairs by group of sessions and expert, where these were asked for.
    """

    rows: int
    pairs: tuple[int, ...]
    overflow_pairs: int = 0
    scored_rows: int = 0
    entropy_sum: float = 0.0
    groups: tuple[int, ...] = ()

    def plus(self, other: Load, sign: int = 1) -> Load:
        """Return the sum; with sign −1 the difference."""
        pairs = zip(self.pairs, other.pairs, strict=True)
        groups = zip(self.groups, other.groups, strict=True)
        return Load(
            self.rows + sign * other.rows,
            tuple(mine + sign * its for mine, its in pairs),
            self.overflow_pairs + sign * other.overflow_pairs,
            self.scored_rows + sign * other.scored_rows,
            self.entropy_sum + sign * other.entropy_sum,
            tuple(mine + sign * its for mine, its in groups),
        )

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each expert, the share of the pairs that it got (E,); zeros where there are none."""
        total = sum(self.pairs)
        return tuple(count / total if total else 0.0 for count in self.pairs)

    @property
    def entropy(self) -> float:
        """Shannon's entropy of the shares, in bits: log2(E) where all get the same."""
        return sum(-share * math.log2(share) for share in self.shares if share)

    @property
    def gate_entropy(self) -> float | None:
        """Mean entropy of the gate's probabilities of a row, in bits; None where none is known."""
        return self.entropy_sum / self.scored_rows if self.scored_rows else None

    @property
    def overflow(self) -> float:
        """The share of the pairs that overflowed."""
        return self.overflow_pairs / max(sum(self.pairs), 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one router had counted at one moment; `incarnation` is new with each start of it.

    `workers` are what it heard of those it has live links to, `at` when it said so on the clock of
    who asked.
    """

    router: str
    incarnation: str
    loads: Mapping[Of, Load]
    workers: Mapping[str, WorkerLoad] = field(default_factory=dict)
    at: float = field(default=0.0, compare=False)

    def since(self, earlier: Reading) -> Reading:
        """Return what came after an earlier reading of the same start of the same router.

        A count that was begun anew meanwhile is given whole.
        """
        loads = {of: _after(load, earlier.loads.get(of)) for of, load in self.loads.items()}
        return replace(self, loads=loads)


def between(earlier: Iterable[Reading], later: Iterable[Reading]) -> tuple[Reading, ...]:
    """Return what each router counted between two readings of all of them.

    A router whose earlier reading is missing is left out where it may have run before: only one
    that has another incarnation than before began in between.
    """
    before = {reading.router: reading for reading in earlier}
    found = []
    for reading in later:
        known = before.get(reading.router)
        if known is not None:
            same = known.incarnation == reading.incarnation
            found.append(reading.since(known) if same else reading)
    return tuple(found)


def total(readings: Iterable[Reading]) -> dict[Of, Load]:
    """Return the sum over routers.

    Two that count by lists of different length know different tables for a moment: the first
    one's list stands.
    """
    sums: dict[Of, Load] = {}
    for reading in readings:
        for of, load in reading.loads.items():
            known = sums.get(of)
            if known is None:
                sums[of] = load
            elif len(known.pairs) == len(load.pairs):
                sums[of] = known.plus(load)
    return sums


def _after(load: Load, earlier: Load | None) -> Load:
    if earlier is None or earlier.rows > load.rows or len(earlier.pairs) != len(load.pairs):
        return load
    return load.plus(earlier, -1)
