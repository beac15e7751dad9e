"""Remembers, of each mixture, how each thing that is watched was lately, and tells what is news.

Between looks it takes in what routers said, and has a mixture looked at only where what follows
has changed. All this is memory only: an operator that starts anew knows nothing until it has seen
a window itself, and what waits for that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from moe_operator.cache import Key
from moe_operator.router_report import RouterReport

# The name of an object, and the sha256 of the version of it that is watched.
Of = tuple[str, str]


class Version(Protocol):
    """What is watched: one version of one object."""

    @property
    def place(self) -> Of: ...


W = TypeVar("W", bound=Version)
H = TypeVar("H")
W_co = TypeVar("W_co", bound=Version, covariant=True)
H_co = TypeVar("H_co", covariant=True)


class Memory(Protocol[W_co, H_co]):
    """What is remembered of one of them."""

    @property
    def of(self) -> W_co: ...

    @property
    def history(self) -> H_co: ...

    def hear(self, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether an alarm came or went, or a window is whole."""
        ...


@dataclass(slots=True)
class Memories(Generic[W, H]):
    """What is remembered of every mixture; `begin` makes the memory of what is watched anew."""

    begin: Callable[[W], Memory[W, H]]
    _mixtures: dict[Key, dict[Of, Memory[W, H]]] = field(default_factory=dict)

    def histories(self, key: Key) -> Mapping[Of, H]:
        """Return how each version was lately; what another version of an object did is no part."""
        return {place: one.history for place, one in self._mixtures.get(key, {}).items()}

    def all(self) -> Iterator[tuple[Key, W, H]]:
        for key, memories in self._mixtures.items():
            for one in memories.values():
                yield key, one.of, one.history

    def follow(self, key: Key, watched: Iterable[W]) -> None:
        """Listen for these from now on; what is watched otherwise than before begins anew."""
        known = self._mixtures.pop(key, {})
        memories = {
            of.place: known[of.place]
            if of.place in known and known[of.place].of == of
            else self.begin(of)
            for of in watched
        }
        if memories:
            self._mixtures[key] = memories

    def leave(self, key: Key) -> None:
        self._mixtures.pop(key, None)

    def hear(self, key: Key, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether that changes what follows from it."""
        said = tuple(reports)
        news = [one.hear(said, now) for one in self._mixtures.get(key, {}).values()]
        return any(news)
