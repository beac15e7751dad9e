"""Finds the experts of a transformers model: where its MoE layers are, and what they are made of.

Reads names, shapes and configuration only, so that experts may be on the meta device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from moe_artifacts.names import GATE_TENSORS
from moe_client.errors import InvalidRequest

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True, slots=True)
class Site:
    """One MoE layer: its number among them, its experts module, its router module."""

    layer: int
    path: str
    experts: nn.Module
    router: nn.Module | None

    @property
    def gate(self) -> torch.Tensor | None:
        """The gate's weights (E, H)."""
        weight = getattr(self.router, "weight", None)
        return weight if isinstance(weight, torch.Tensor) else None

    @property
    def learned(self) -> dict[str, torch.Tensor]:
        """What the gate has learned, by the names that its artifact has for them."""
        own = {name: getattr(self.router, given, None) for name, given in GATE_TENSORS.items()}
        return {name: tensor for name, tensor in own.items() if isinstance(tensor, torch.Tensor)}

    @property
    def num_experts(self) -> int:
        count: int = self.experts.num_experts  # type: ignore[assignment]
        return count


def find_sites(model: nn.Module) -> tuple[Site, ...]:
    """Return the MoE layers of a model, counted from 0: layers without experts do not count.

    Raises InvalidRequest where there is none that takes another implementation of its experts,
    or where the number of a layer cannot be told from the module's path.
    """
    sites = []
    for path, module in model.named_modules():
        if isinstance(getattr(module, "is_transposed", None), bool) and hasattr(module, "has_gate"):
            sites.append(_site(model, path, module))
    if not sites:
        raise InvalidRequest(
            f"{type(model).__name__} has no experts modules that transformers lets others compute"
        )
    layers = [site.layer for site in sites]
    if len(set(layers)) != len(layers):
        raise InvalidRequest(f"{type(model).__name__} has several experts modules in one layer")
    ordered = sorted(sites, key=lambda site: site.layer)
    return tuple(replace(site, layer=number) for number, site in enumerate(ordered))


def _site(model: nn.Module, path: str, module: nn.Module) -> Site:
    numbers = _LAYER.findall(path)
    if len(numbers) != 1:
        raise InvalidRequest(f"experts module {path} does not say which layer it is of")
    block: Any = model.get_submodule(path.rpartition(".")[0])
    router = getattr(block, "gate", None) or getattr(block, "router", None)
    return Site(int(numbers[0]), path, module, router if isinstance(router, nn.Module) else None)
