"""A fake router that serves two versions of an expert, by what rows are forced to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from moeops.v1 import router_pb2
from tests.client.tiny import EXPERTS, Served, load_tiny
from tests.fakes.router import Exchange

STABLE, CANDIDATE = "aa" * 32, "bb" * 32
TRIED = "e1"


def candidate_of(model: Any, factor: float) -> Any:
    """Change the model's expert `TRIED` in its first layer, to what is its candidate."""
    number = EXPERTS.index(TRIED)
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[number] *= factor
    return model


@dataclass
class TwoVersions:
    """Computes what is forced. `spoil` changes the next answers, one each, before they go out."""

    stable: Served
    candidate: Served
    spoil: list[Any] = field(default_factory=list)
    forced: list[tuple[str, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, checkpoint: Any, factor: float) -> TwoVersions:
        stable = Served.of(load_tiny(checkpoint))
        return cls(stable, Served.of(candidate_of(load_tiny(checkpoint), factor)))

    async def act(self, exchange: Exchange) -> None:
        request = exchange.request
        assert isinstance(request, router_pb2.DispatchRequest)
        (digest,) = {f.sha256 for s in request.sequences for f in s.forced}
        self.forced.append(tuple(f.expert_id for f in request.sequences[0].forced))
        response = exchange.echo()
        version = {STABLE: self.stable, CANDIDATE: self.candidate}[digest]
        response.hidden = version.answer(request)
        if self.spoil:
            self.spoil.pop(0)(response)
        exchange.answer(response)
