"""What the example model's gate chooses for each piece of its held-out text.

Computed live from what is stored. A piece is one session: it is read from an empty cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.tiny import outage
from examples.tiny.domains import DOMAINS, EXPERTS
from examples.tiny.model import CONTEXT, heldout, load

Pieces = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pairs of each piece by layer and expert, (P, L, E), by domain; a piece has CONTEXT rows."""

    pairs: Mapping[str, Pieces]

    def halves(self) -> tuple[Chosen, Chosen]:
        """Return every second piece, and the others: to compare with, and to be served."""
        return (
            Chosen({name: pieces[::2] for name, pieces in self.pairs.items()}),
            Chosen({name: pieces[1::2] for name, pieces in self.pairs.items()}),
        )


def choose() -> Chosen:
    """Read all held-out text with one thread; about five seconds."""
    torch.set_num_threads(1)
    model = load(torch.float32)
    model.set_experts_implementation("eager")
    found = {}
    for domain in DOMAINS:
        text = torch.tensor(list(heldout(domain)))
        pieces = text[: len(text) // CONTEXT * CONTEXT].view(-1, CONTEXT)
        layers: list[Pieces] = []
        hooks = [_hook(gate, layers, len(pieces)) for gate in outage.gates(model)]
        with torch.inference_mode():
            model(input_ids=pieces, use_cache=False)
        for hook in hooks:
            hook.remove()
        found[domain] = np.stack(layers, axis=1)
    return Chosen(found)


def _hook(gate: nn.Module, layers: list[Pieces], pieces: int) -> torch.utils.hooks.RemovableHandle:
    def count(_gate: nn.Module, _args: object, out: outage.GateOutput) -> None:
        chosen = out[2].reshape(pieces, -1).numpy()
        places = chosen + np.arange(pieces)[:, None] * EXPERTS
        layers.append(np.bincount(places.ravel(), minlength=pieces * EXPERTS).reshape(pieces, -1))

    return gate.register_forward_hook(count)
