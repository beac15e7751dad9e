"""The example model's losses, piece by piece, under several versions of one expert.

Computed live from what is stored: nothing here is drawn from a distribution. A piece is read from
an empty cache, as sequences of a golden set are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import MixtralForCausalLM

from examples.tiny import outage
from examples.tiny.domains import DOMAINS
from examples.tiny.model import (
    CONTEXT,
    expert_tensors,
    heldout,
    load,
    load_version,
    replace_expert,
)

EXPERT = 3
TOKENS = CONTEXT - 1
"""Predicted bytes of one piece."""

Floats = NDArray[np.float64]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Recording:
    """Pieces in the order of their text, and what each version made of them.

    domain: (P,) index into DOMAINS. bits: version -> (P,) mean loss of a piece in bits per byte.
    drift: version -> mean over rows and layers of ‖y − y_stable‖ / ‖y_stable‖, the expert's
    outputs on the rows that it is chosen for.
    """

    domain: NDArray[np.int64]
    bits: Mapping[str, Floats]
    drift: Mapping[str, float]

    def harmed(self, increase: float) -> Floats:
        """Return losses on the way from stable's to the worse version's, up by `increase`."""
        harm = self.bits["worse"] - self.bits["stable"]
        return np.asarray(self.bits["stable"] + increase / harm.mean() * harm)


def record() -> Recording:
    """Run every version over all held-out text with one thread; about 15 seconds."""
    torch.set_num_threads(1)
    model = load(torch.float32)
    model.set_experts_implementation("eager")
    stable, worse = expert_tensors(model, EXPERT), load_version("expert-3-worse")
    versions: dict[str, Tensors] = {
        "better": load_version("expert-3-better"),
        "worse": worse,
        "damaged": {name: (stable[name] + worse[name].float()) / 2 for name in stable},
    }
    domain, pieces = _pieces()
    rows: list[list[Tensor]] = []
    with _kept(model, rows):
        bits = {"stable": _bits(model, pieces)}
    for name, tensors in versions.items():
        replace_expert(model, EXPERT, tensors)
        bits[name] = _bits(model, pieces)
    inputs = [torch.cat(layer) for layer in rows]
    drift = {name: _drift(stable, tensors, inputs) for name, tensors in versions.items()}
    return Recording(domain, bits, drift)


def _pieces() -> tuple[NDArray[np.int64], Tensor]:
    domain, pieces = [], []
    for number, name in enumerate(DOMAINS):
        text = torch.tensor(list(heldout(name)))
        whole = text[: len(text) // CONTEXT * CONTEXT].view(-1, CONTEXT)
        pieces.append(whole)
        domain += [number] * len(whole)
    return np.array(domain), torch.cat(pieces)


@torch.inference_mode()
def _bits(model: MixtralForCausalLM, pieces: Tensor) -> Floats:
    """Return the mean loss of each piece, (P,)."""
    found = []
    for given in torch.split(pieces, 32):
        logits = model(input_ids=given, use_cache=False).logits[:, :-1].float()
        loss = functional.cross_entropy(logits.transpose(1, 2), given[:, 1:], reduction="none")
        found.append(loss.double().mean(1) / math.log(2))
    return torch.cat(found).numpy()


@contextmanager
def _kept(model: MixtralForCausalLM, rows: list[list[Tensor]]) -> Iterator[None]:
    """Keep the rows that choose EXPERT while inside, a list for each layer."""

    def keep(layer: int, gate: nn.Module, hooks: ExitStack) -> None:
        def chosen(_gate: nn.Module, args: tuple[Tensor, ...], out: outage.GateOutput) -> None:
            given = args[0].reshape(-1, args[0].shape[-1])
            rows[layer].append(given[(out[2] == EXPERT).any(-1)])

        hooks.callback(gate.register_forward_hook(chosen).remove)

    with ExitStack() as hooks:
        for layer, gate in enumerate(outage.gates(model)):
            rows.append([])
            keep(layer, gate, hooks)
        yield


@torch.inference_mode()
def _drift(stable: Tensors, version: Tensors, inputs: list[Tensor]) -> float:
    found: list[float] = []
    for layer, rows in enumerate(inputs):
        before, after = _answer(stable, layer, rows), _answer(version, layer, rows)
        found.append(((after - before).norm(dim=-1) / before.norm(dim=-1)).mean().item())
    return sum(found) / len(found)


def _answer(named: Tensors, layer: int, rows: Tensor) -> Tensor:
    """Return one expert's outputs, (rows, H), from tensors under any expert's names."""
    w1, w2, w3 = (
        next(t for n, t in named.items() if f".{layer}.block" in n and f".{part}." in n).float()
        for part in ("w1", "w2", "w3")
    )
    return (functional.silu(rows @ w1.T) * (rows @ w3.T)) @ w2.T
