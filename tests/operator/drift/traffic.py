"""Live rows of a gate, drawn by chance: sessions of one kind of text each, in groups."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moe_core.drift import GROUPS, Spread, spread
from moe_operator.drift import Tallies, Tally
from moe_operator.drift_spec import Place

# The share of a session's pairs that each expert gets, by kind of text.
Kinds = Mapping[str, Sequence[float]]


@dataclass
class Traffic:
    """What one router counts of one layer; a session's rows are all of one kind."""

    kinds: Kinds
    seed: int = 1
    rows_of_session: int = 64
    place: Place = (0, "")
    rng: np.random.Generator = field(init=False)
    rows: int = 0
    overflow_pairs: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.experts = len(next(iter(self.kinds.values())))
        self.groups = np.zeros((GROUPS, self.experts), np.int64)

    def serve(self, sessions: int, mix: Mapping[str, float], overflow: float = 0.0) -> None:
        """Let so many sessions come, of kinds drawn with these weights."""
        names, weights = list(mix), np.array(list(mix.values()))
        kinds = self.rng.choice(len(names), sessions, p=weights / weights.sum())
        shares = np.array([self.kinds[name] for name in names])[kinds]
        pairs = self.rng.multinomial(self.rows_of_session, shares)
        np.add.at(self.groups, self.rng.integers(GROUPS, size=sessions), pairs)
        self.rows += sessions * self.rows_of_session
        self.overflow_pairs += int(overflow * sessions * self.rows_of_session)

    @property
    def tallies(self) -> Tallies:
        """What is counted since the router began."""
        pairs = array("q", self.groups.ravel().tolist())
        return {self.place: Tally(self.rows, pairs, self.overflow_pairs)}

    @property
    def spread(self) -> Spread:
        found = spread(self.groups.ravel().tolist(), self.experts)
        assert found is not None
        return found
