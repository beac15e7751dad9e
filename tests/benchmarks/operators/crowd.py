"""Many Experts in mixtures of bounded size, as people write them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.operator.engine.bodies import Body, own

A_TABLE = 250  # experts at most: their table is one object
_QUICK = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 0}],
    "minRequests": 1,
    "scaleDownDelaySeconds": 3600,
}


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many Experts of one namespace."""

    count: int

    @property
    def mixtures(self) -> dict[str, tuple[str, ...]]:
        """The names of the Experts of each mixture; they are their ids, too."""
        names = [f"e{number:04d}" for number in range(self.count)]
        starts = range(0, self.count, A_TABLE)
        return {f"m{at // A_TABLE}": tuple(names[at : at + A_TABLE]) for at in starts}

    def some(self, most: int) -> list[str]:
        """Return so many of the experts, or all of them, evenly from all mixtures."""
        names = [name for members in self.mixtures.values() for name in members]
        taken = min(most, self.count)
        return [names[at * self.count // taken] for at in range(taken)]

    def mixture_of(self, name: str) -> str:
        return f"m{int(name[1:]) // A_TABLE}"

    def parents(self) -> Iterator[Body]:
        """Yield all Mixtures and Gates."""
        for mixture, members in self.mixtures.items():
            fields = {"hiddenSize": 64, "layers": 2, "dtype": "Float32"}
            rollouts = {"routers": {"replicas": 1}, "rollouts": {"maxConcurrent": 100}}
            yield own("Mixture", mixture, {**fields, **rollouts})
            gate = {
                "mixtureRef": {"name": mixture},
                "version": "v1",
                "artifact": artifact(mixture, "gate"),
                "experts": [{"id": name} for name in members],
                "policy": {"type": "TopK", "topK": 1},
            }
            yield own("Gate", f"{mixture}-gate", gate)

    def experts(self) -> Iterator[Body]:
        for mixture, members in self.mixtures.items():
            for name in members:
                fields = {"mixtureRef": {"name": mixture}, "expertId": name, "layers": [0, 1]}
                yield own("Expert", name, {**fields, "rollout": _QUICK, **version(name, "v1")})


def version(name: str, said: str) -> dict[str, Any]:
    """Return the fields of an Expert's spec that ask for a version."""
    return {"version": said, "artifact": artifact(name, said)}


def artifact(name: str, said: str) -> dict[str, str]:
    sha256 = hashlib.sha256(f"{name} {said}".encode()).hexdigest()
    return {"uri": f"file:///artifacts/{name}/{said}", "sha256": sha256}
