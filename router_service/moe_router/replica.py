"""Which workers can serve an artifact, and which of them gets the next rows.

Filter, score, pick: pure, and the same answer for the same arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

# A further message to a further worker costs about as much as this many rows of a small expert.
MESSAGE_ROWS = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker says that it can serve: layers by artifact digest.

    One that is `doubted` has been silent for a moment.
    """

    worker: str
    layers: Mapping[str, frozenset[int]]
    doubted: bool = False


Held = Mapping[tuple[str, int], tuple[str, ...]]  # workers by artifact and layer


@dataclass(frozen=True, slots=True)
class Routable:
    """The workers that may get rows. Built when an inventory or a link's state changes.

    `ejected` are outliers: at most half of the live workers of an artifact.
    """

    live: Held = field(default_factory=dict)
    doubted: Held = field(default_factory=dict)
    ejected: Held = field(default_factory=dict)

    @classmethod
    def of(cls, offers: Iterable[Offer], outliers: Sequence[str] = ()) -> Self:
        """Sort workers; of more outliers than half of an artifact's, the first ones count."""
        ordered = sorted(offers, key=lambda offer: offer.worker)
        speaking = _held(offer for offer in ordered if not offer.doubted)
        live, ejected = dict(speaking), {}
        for key, workers in speaking.items() if outliers else ():
            out = [one for one in outliers if one in workers][: len(workers) // 2]
            if out:
                live[key] = tuple(one for one in workers if one not in out)
                ejected[key] = tuple(out)
        return cls(live, _held(offer for offer in ordered if offer.doubted), ejected)

    def for_artifact(
        self, sha256: str, layer: int, without: Collection[tuple[str, str]] = ()
    ) -> tuple[str, ...]:
        """Return the live workers; where there are none, the outliers, else those in doubt.

        Leaves out (worker, sha256) in `without`.
        """
        for held in (self.live, self.ejected, self.doubted):
            found = held.get((sha256, layer), ())
            if found and without:
                found = tuple(worker for worker in found if (worker, sha256) not in without)
            if found:
                return found
        return ()

    @property
    def artifacts(self) -> frozenset[str]:
        """The digests that a worker holds, in any layer."""
        places = (*self.live, *self.ejected, *self.doubted)
        return frozenset(sha256 for sha256, _ in places)


def _held(offers: Iterable[Offer]) -> Held:
    found: dict[tuple[str, int], list[str]] = {}
    for offer in offers:
        for sha256, layers in offer.layers.items():
            for layer in layers:
                found.setdefault((sha256, layer), []).append(offer.worker)
    return {key: tuple(workers) for key, workers in found.items()}


def pick(
    workers: Sequence[str],
    load: Mapping[str, int],
    lateness: Mapping[str, int],
    given: Mapping[str, int],
) -> str:
    """Pick one of `workers` (not empty): the least rows waiting, counting what it was just given.

    `load` are rows that wait at each worker, `lateness` what counts as such, `given` the rows of
    this request that it already gets. A worker that gets a message anyway is preferred to one that
    would need another. Equal scores go to the first, so the caller turns the list to spread idle
    workers.
    """
    if len(workers) == 1:
        return workers[0]

    def score(worker: str) -> int:
        already = given.get(worker)
        waiting = load.get(worker, 0) + lateness.get(worker, 0)
        return waiting + (MESSAGE_ROWS if already is None else already)

    return min(workers, key=score)


def turned(workers: Sequence[str], turn: int) -> Sequence[str]:
    """Return the workers beginning with another one at each turn."""
    at = turn % len(workers)
    if at == 0:
        return workers
    return [*workers[at:], *workers[:at]]
