"""Checks that a model is the one whose experts are served, before its first token.

Each check names both values. Digests are computed from the model's own tensors, so that a trunk
or a gate that only looks alike is found here and not in the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from moe_artifacts.artifact import sha256_of
from moe_artifacts.metadata import GateMetadata
from moe_artifacts.names import is_trunk
from moe_artifacts.trunk import Tensor, trunk_sha256
from moe_client.errors import Mismatch
from moe_client.mixture import Gate, Mixture
from moe_client.site import Site
from moe_client.tensors import to_numpy
from moe_core.dtypes import ELEMENT_TYPES, by_name
from moe_core.kernel import element_type, torch_dtype


def check_shape(model: Any, sites: Sequence[Site], mixture: Mixture) -> None:
    """Raise Mismatch unless sizes, layers, experts, top-k and dtype are those of the mixture."""
    config = model.config.get_text_config()
    _same("hidden size", config.hidden_size, mixture.hidden_size, mixture)
    _same("number of MoE layers", len(sites), mixture.layers, mixture)
    _same("dtype", element_type(model.dtype).name, mixture.dtype, mixture)
    for site in sites:
        gate = mixture.gate_of(site.layer)
        if gate is None:
            raise Mismatch(
                f"mixture {mixture.name} has no gate for layer {site.layer} of the model",
                epoch=mixture.epoch,
            )
        where = f"in layer {site.layer}"
        _same(f"number of experts {where}", site.num_experts, len(gate.experts), mixture)
        _same(f"top-k {where}", config.num_experts_per_tok, gate.top_k, mixture)


def check_digests(model: Any, sites: Sequence[Site], mixture: Mixture) -> None:
    """Raise Mismatch unless trunk and gates are bit for bit those of the mixture.

    A trunk without a digest in the mixture, and a gate that the model does not show, are passed.
    """
    if mixture.trunk_sha256:
        _same("trunk", trunk_sha256(_trunk(model)), mixture.trunk_sha256, mixture)
    for gate in mixture.gates:
        weights = {site.layer: site.gate for site in sites if site.layer in gate.layers}
        if len(weights) != len(gate.layers) or any(w is None for w in weights.values()):
            continue
        digests = _gate_digests(gate, {k: w for k, w in weights.items() if w is not None})
        if gate.sha256 not in digests:
            _same(f"gate {gate.name}", digests[0], gate.sha256, mixture)


def _trunk(model: Any) -> Iterator[Tensor]:
    for name, tensor in model.state_dict().items():
        if is_trunk(name):
            plain = tensor.detach().cpu().contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy()
            yield name, data, tuple(tensor.shape), str(tensor.dtype)


def _gate_digests(gate: Gate, weights: dict[int, torch.Tensor]) -> list[str]:
    """Return the digests of this gate as an artifact, in its dtype and those that lose nothing."""
    some = next(iter(weights.values()))
    own = element_type(some.dtype).name
    names = [own, *(e.name for e in ELEMENT_TYPES if e.name != own)]
    digests = []
    for name in names:
        dtype = torch_dtype(by_name(name))
        cast = {layer: weight.detach().to(dtype) for layer, weight in weights.items()}
        if all(torch.equal(cast[layer].to(some.dtype), weights[layer]) for layer in weights):
            digests.append(_gate_digest(gate, name, cast))
    return digests


def _gate_digest(gate: Gate, dtype: str, weights: dict[int, torch.Tensor]) -> str:
    hidden_size = next(iter(weights.values())).shape[1]
    metadata = GateMetadata(gate.layers, hidden_size, gate.experts, gate.top_k, dtype)
    arrays = {f"layers.{layer}.weight": to_numpy(weight) for layer, weight in weights.items()}
    return sha256_of(metadata, arrays.__getitem__)


def _same(what: str, own: object, served: object, mixture: Mixture) -> None:
    if own != served:
        raise Mismatch(
            f"the model's {what} is {own}; mixture {mixture.name} serves {served}",
            epoch=mixture.epoch,
        )
