"""What is done to a router module of transformers: copied with other tensors, and stood in for.

A router module answers rows (T, H) with logits (T, E), weights (T, k) and indices (T, k). A copy
shares nothing that could change the module itself; which rows take whose answer is decided
elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
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
    return _forward(router)


def copy_router(
    router: nn.Module,
    layer: int,
    learned: Mapping[str, torch.Tensor],
    top_k: int,
    added: torch.Tensor | None = None,
) -> Forward:
    """Return what the module would do with these tensors, by its own names of them, and top-k.

    `added` (E,) is added to its logits, as one more column of the weight, in its dtype.

    Raises InvalidRequest for a module that has learned anything else: that would be the old gate's.
    """
    _check_form(router, layer, learned)
    twin: Any = copy.copy(router)
    twin.__dict__ = {k: v for k, v in router.__dict__.items() if k != "forward"}
    old = {**router._parameters, **router._buffers}
    own = {name: tensor.to(old[name]) for name, tensor in learned.items()}
    twin._parameters = {
        name: nn.Parameter(own[name], requires_grad=False) for name in router._parameters
    }
    twin._buffers = {name: own[name] for name in router._buffers}
    twin.top_k, twin.num_experts = top_k, len(learned["weight"])
    align(twin)
    return _forward(twin) if added is None else _biased(twin, added)


def _forward(router: nn.Module) -> Forward:
    forward: Forward = router.forward
    return forward


def _biased(twin: Any, added: torch.Tensor) -> Forward:
    """Return a copy's forward with a bias: a one behind each row, and a column of the weight."""
    column = added[:, None].to(twin.weight)
    wide = torch.cat([twin.weight, column], dim=1)  # (E, H + 1)
    twin._parameters["weight"] = nn.Parameter(wide, requires_grad=False)
    width, twin.hidden_dim = twin.hidden_dim, twin.hidden_dim + 1
    align(twin)

    def forward(hidden: torch.Tensor) -> Chosen:
        rows = hidden.reshape(-1, width)
        chosen: Chosen = twin.forward(torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1))
        return chosen

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


def _check_form(router: nn.Module, layer: int, given: Mapping[str, torch.Tensor]) -> None:
    learned = {name for name, _ in (*router.named_parameters(), *router.named_buffers())}
    counts = (getattr(router, name, None) for name in ("top_k", "num_experts", "hidden_dim"))
    if learned != given.keys() or not all(isinstance(count, int) for count in counts):
        has = ", ".join(sorted(learned)) or "nothing"
        raise InvalidRequest(
            f"layer {layer}: {type(router).__name__} cannot be copied for another version of its "
            f"gate: it holds {has}; the version has {', '.join(given)}, and wants top_k, "
            "num_experts and hidden_dim beside them"
        )
