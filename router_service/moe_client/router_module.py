"""What is done to a router module of transformers: copied with other weights, and stood in for.

A router module answers rows (T, H) with logits (T, E), weights (T, k) and indices (T, k). A copy
shares nothing that could change the module itself; which rows take whose answer is decided
elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from moe_client.alignment import align
from moe_client.errors import InvalidRequest

Chosen = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""(T, E) logits, (T, k) weights, (T, k) indices into the gate's list of experts."""
Forward = Callable[[torch.Tensor], Chosen]
_BEFORE = "_moeops_forward_before"


def own_forward(router: nn.Module) -> Forward:
    """Return what the module does by itself, whatever stands in for it by then."""
    forward: Forward = router.forward
    return forward


def copy_router(router: nn.Module, layer: int, weight: torch.Tensor, top_k: int) -> Forward:
    """Return what the module would do with this weight (E, H) and top-k.

    Raises InvalidRequest for a module that is made of more than a weight and top-k: what else it
    has learned would be the old gate's.
    """
    _check_form(router, layer)
    old: Any = router.weight
    twin: Any = copy.copy(router)
    twin.__dict__ = {k: v for k, v in router.__dict__.items() if k != "forward"}
    own = weight.to(device=old.device, dtype=old.dtype)
    twin._parameters = {"weight": nn.Parameter(own, requires_grad=False)}
    twin.top_k, twin.num_experts = top_k, len(weight)
    align(twin)
    forward: Forward = twin.forward
    return forward


def stand_in(router: nn.Module, forward: Forward) -> None:
    """Let `forward` answer for the module."""
    router.__dict__[_BEFORE] = router.__dict__.get("forward")
    router.__dict__["forward"] = forward


def remove(router: nn.Module) -> None:
    """Undo `stand_in`."""
    before = router.__dict__.pop(_BEFORE)
    if before is None:
        del router.__dict__["forward"]
    else:  # another library's stand-in
        router.__dict__["forward"] = before


def _check_form(router: nn.Module, layer: int) -> None:
    learned = {name for name, _ in (*router.named_parameters(), *router.named_buffers())}
    counts = (getattr(router, name, None) for name in ("top_k", "num_experts"))
    if learned != {"weight"} or not all(isinstance(count, int) for count in counts):
        has = ", ".join(sorted(learned)) or "nothing"
        raise InvalidRequest(
            f"layer {layer}: {type(router).__name__} cannot be copied for another version of its "
            f"gate: it holds {has}; it must hold a weight alone, with top_k and num_experts"
        )
