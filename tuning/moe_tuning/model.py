"""The whole model in one process: its trunk, with a version's experts and gate put in.

It computes in float32 with transformers' own blocks, but for the gates. What is put in replaces
what was there, so one model serves for before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moe_artifacts.errors import Refused
from moe_artifacts.golden import Golden
from moe_client.site import find_sites
from moe_client.trunk import load_trunk
from moe_tuning.folder import Folder
from moe_tuning.parts import Parts, Weights
from moe_tuning.router import PolicyRouter


@dataclass(frozen=True, slots=True)
class Model:
    """A transformers model of a family whose experts are Mixtral's, its gates in torch here."""

    hf: Any

    def logits(self, tokens: Tensor) -> Tensor:
        """Return (N, L, V) for tokens (N, L), each sequence read from an empty cache."""
        for block in self.blocks():
            block.gate.lengths = (tokens.shape[1],) * len(tokens)
        logits: Tensor = self.hf(input_ids=tokens, use_cache=False).logits
        return logits

    def blocks(self) -> Sequence[Any]:
        """Return the mixture block of each layer, with `gate` and `experts`."""
        paths = (site.path.rpartition(".")[0] for site in find_sites(self.hf))
        return [self.hf.get_submodule(path) for path in paths]

    def install(self, parts: Parts) -> None:
        """Put a gate and its experts in, as parameters that nothing trains."""
        for layer, block in enumerate(self.blocks()):
            held = [parts.experts[name] for name in parts.ids]
            prefix = f"layers.{layer}."
            block.experts.gate_up_proj = _parameter(
                [torch.cat([w[prefix + "gate_proj"], w[prefix + "up_proj"]]) for w in held]
            )
            block.experts.down_proj = _parameter([w[prefix + "down_proj"] for w in held])
            block.experts.num_experts = len(held)
            block.gate = PolicyRouter(parts.policy, parts.learned(layer))

    def expert(self, row: int) -> Weights:
        """Return copies of an expert's tensors as they are now."""
        weights = {}
        for layer, block in enumerate(self.blocks()):
            gate, up = block.experts.gate_up_proj[row].detach().chunk(2)  # (I, H) each
            weights[f"layers.{layer}.gate_proj"] = gate.clone()
            weights[f"layers.{layer}.up_proj"] = up.clone()
            weights[f"layers.{layer}.down_proj"] = block.experts.down_proj[row].detach().clone()
        return weights

    def gate(self) -> Weights:
        """Return copies of the gate's tensors as they are now, of all layers."""
        return {
            f"layers.{layer}.{name}": tensor
            for layer, block in enumerate(self.blocks())
            for name, tensor in block.gate.learned.items()
        }


def load_model(folder: Folder, parts: Parts) -> Model:
    """Return the model of a folder's trunk with these parts. Raises Refused, BadCheckpoint."""
    hf = load_trunk(folder.trunk(), dtype=torch.float32)
    seen = (hf.config.hidden_size, len(find_sites(hf)))
    right = (parts.gate_metadata.hidden_size, len(parts.gate_metadata.layers))
    if seen != right:
        raise Refused(
            f"{folder.trunk()}: hidden size and MoE layers are {seen}; the gate's are {right}"
        )
    hf.set_experts_implementation("grouped_mm")
    model = Model(hf)
    model.install(parts)
    return model


def check_vocabulary(model: Model, texts: Mapping[str, Golden]) -> None:
    """Raise Refused where a text has tokens that the model does not know."""
    size = model.hf.config.vocab_size
    for what, golden in texts.items():
        largest = max(int(sequence.tokens.max()) for sequence in golden.sequences)
        if largest >= size:
            raise Refused(f"{what} has the token {largest}; the model has {size}, from 0")


def batches(golden: Golden, size: int, slice_: str | None = None) -> Iterator[Tensor]:
    """Give all sequences, of one slice or of all, as (N ≤ size, L) of one length each."""
    by_length: dict[int, list[Tensor]] = {}
    for sequence in golden.sequences:
        if slice_ in (None, sequence.slice):
            tokens = torch.from_numpy(sequence.tokens).long()
            by_length.setdefault(len(tokens), []).append(tokens)
    for alike in by_length.values():
        for start in range(0, len(alike), size):
            yield torch.stack(alike[start : start + size])


def neurons(experts: Any, number: int, hidden: Tensor) -> Tensor:
    """Return what the neurons of one expert of a module give for hidden (T, H): (T, I)."""
    gate, up = experts.gate_up_proj[number].chunk(2)
    return feed_forward(gate, up, None, hidden)


def feed_forward(gate: Tensor, up: Tensor, down: Tensor | None, hidden: Tensor) -> Tensor:
    """Return an expert's answer (T, H) to hidden (T, H); without `down` its neurons' (T, I)."""
    active = functional.silu(functional.linear(hidden, gate)) * functional.linear(hidden, up)
    return active if down is None else functional.linear(active, down)


def _parameter(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack(list(tensors)), requires_grad=False)
