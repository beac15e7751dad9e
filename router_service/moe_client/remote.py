"""The experts implementation `moeops_remote`: hands each MoE layer's rows to an attachment.

Importing this module registers it with transformers. It computes nothing itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from moe_client.errors import InvalidRequest

REMOTE = "moeops_remote"
_PLACE = "_moeops_remote"


class Experts(Protocol):
    """Computes the experts of a layer somewhere."""

    def compute(
        self, layer: int, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the combined answer (T, H); `index` and `weights` are (T, k)."""


def place(module: nn.Module, experts: Experts, layer: int) -> None:
    """Let these experts compute what the module is asked, as layer `layer`."""
    module.__dict__[_PLACE] = experts, layer


def remove(module: nn.Module) -> None:
    """Undo `place`."""
    del module.__dict__[_PLACE]


def compute_remote(
    module: nn.Module, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the answer (T, H) of the experts that were placed. Raises MoeError."""
    placed = module.__dict__.get(_PLACE)
    if placed is None:
        raise InvalidRequest(f"experts implementation {REMOTE} is chosen by moe_client.attach only")
    experts, layer = placed
    answer: torch.Tensor = _WithoutGradient.apply(hidden, experts, layer, index, weights)
    return answer


class _WithoutGradient(torch.autograd.Function):
    """Remote experts give no gradients; asking for them is an error and not a silent zero."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        experts: Experts,
        layer: int,
        index: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        return experts.compute(layer, hidden, index, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise InvalidRequest("experts that run elsewhere give no gradients; detach to train")


ALL_EXPERTS_FUNCTIONS.register(REMOTE, compute_remote)
