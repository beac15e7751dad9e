"""The reference: a model in one process whose experts run the kernel that workers run.

Importing this module registers two implementations of experts with transformers: `moeops_local`
(`Exact`: the bits that a healthy mixture gives through `Dispatch`) and `moeops_local_fast`.
Weights are copied into kernels at first use, and again when they were changed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from moe_client.alignment import align
from moe_client.errors import InvalidRequest
from moe_client.site import find_sites
from moe_core.exactness import fast, prove
from moe_core.kernel import ExpertKernel, Rule, combine_torch

EXACT = "moeops_local"
FAST = "moeops_local_fast"
_KERNELS = "_moeops_kernels"


def use_local(model: Any, *, numerics: str = "Exact") -> None:
    """Make a transformers model compute its experts here with the workers' kernel.

    Raises InvalidRequest for experts of another form than Mixtral's, moe_core.exactness.NotExact
    where this machine cannot be exact.
    """
    if numerics not in ("Exact", "Fast"):
        raise InvalidRequest(f"numerics is {numerics!r}; it must be Exact or Fast")
    for site in find_sites(model):
        _check_form(site.experts, site.path)
    align(model)
    model.set_experts_implementation(EXACT if numerics == "Exact" else FAST)


def compute_exact(
    module: nn.Module, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the experts' answer (T, H) to `hidden` (T, H); `index`, `weights` are (T, k)."""
    return _compute(module, hidden, index, weights, exact=True)


def compute_fast(
    module: nn.Module, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return what `compute_exact` does, but for the last bits."""
    return _compute(module, hidden, index, weights, exact=False)


@torch.no_grad()
def _compute(
    module: Any,
    hidden: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    *,
    exact: bool,
) -> torch.Tensor:
    kernels = _kernels(module, exact)
    rows = hidden.new_empty((*index.shape, hidden.shape[1]))  # (T, k, H)
    for expert in set(index.flatten().tolist()):
        token, slot = torch.where(index == expert)
        rows[token, slot] = kernels[expert](hidden[token])
    return combine_torch(rows, weights, hidden.dtype)


def _kernels(module: Any, exact: bool) -> list[ExpertKernel]:
    """Return the kernels of a module's experts, made anew where its weights have changed."""
    wide, down = module.gate_up_proj, module.down_proj  # (E, 2I, H), (E, H, I)
    state = (exact, *(_version(weight) for weight in (wide, down)))
    held = module.__dict__.get(_KERNELS)
    if held is not None and held[0] == state:
        kernels: list[ExpertKernel] = held[1]
        return kernels
    _check_form(module, type(module).__name__)
    hidden, intermediate = down.shape[1:]
    rule = _rule(down.dtype, hidden, intermediate, down.device, exact)
    both = zip(wide[:, :intermediate], wide[:, intermediate:], down, strict=True)
    kernels = [ExpertKernel(gate, up, d, rule) for gate, up, d in both]
    module.__dict__[_KERNELS] = state, kernels
    return kernels


@cache
def _rule(
    dtype: torch.dtype, hidden: int, intermediate: int, device: torch.device, exact: bool
) -> Rule:
    return prove(dtype, hidden, intermediate, device) if exact else fast(device)


def _version(weight: torch.Tensor) -> tuple[int, int, torch.dtype]:
    """Return what changes when a weight is written to or replaced."""
    writes = -1 if weight.is_inference() else weight._version
    return weight.data_ptr(), writes, weight.dtype


def _check_form(module: Any, path: str) -> None:
    plain = module.has_gate and module.is_concatenated and not module.is_transposed
    if not plain or module.has_bias or not isinstance(module.act_fn, nn.SiLU | _silu()):
        raise InvalidRequest(
            f"{path} ({type(module).__name__}) is no SwiGLU expert without bias, "
            "gate before up, as Mixtral's are"
        )
    if module.down_proj.is_meta:
        raise InvalidRequest(f"{path} has no weights: the model was loaded without its experts")


def _silu() -> type[nn.Module]:
    from transformers.activations import SiLUActivation

    return SiLUActivation


ALL_EXPERTS_FUNCTIONS.register(EXACT, compute_exact)
ALL_EXPERTS_FUNCTIONS.register(FAST, compute_fast)
