"""Checks that a model is the one whose experts are served, before its first token.

Each check names both values. Digests are computed from the model's own tensors, so that a trunk
that only looks alike is found here and not in the answers, and so that it is known which versions
of the gates are the model's own; others have to be fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from moe_artifacts.artifact import sha256_of
from moe_artifacts.metadata import WEIGHT, GateMetadata
from moe_artifacts.names import is_trunk
from moe_artifacts.trunk import Tensor, trunk_sha256
from moe_client.errors import Mismatch
from moe_client.mixture import GateVersion, Mixture
from moe_client.own_policy import OwnPolicy
from moe_client.site import Site
from moe_client.tensors import to_numpy
from moe_core.dtypes import ELEMENT_TYPES, by_name
from moe_core.kernel import element_type, torch_dtype

Shown = Mapping[int, Mapping[str, torch.Tensor]]
"""By layer, what a model's gate has learned, by the artifact's names."""


def check_shape(model: Any, sites: Sequence[Site], mixture: Mixture) -> None:
    """Raise Mismatch unless sizes, layers and dtype are those of the mixture."""
    config = model.config.get_text_config()
    _same("hidden size", config.hidden_size, mixture.hidden_size, mixture)
    _same("number of MoE layers", len(sites), mixture.layers, mixture)
    _same("dtype", element_type(model.dtype).name, mixture.dtype, mixture)
    for site in sites:
        if mixture.gate_of(site.layer) is None:
            raise Mismatch(
                f"mixture {mixture.name} has no gate for layer {site.layer} of the model",
                epoch=mixture.epoch,
            )


def trust(model: Any, sites: Sequence[Site], mixture: Mixture) -> dict[str, str]:
    """Return what `check_digests` does without reading a tensor: the gates are taken for stable.

    Raises Mismatch where the number of experts or the policy show that they are not.
    """
    own = OwnPolicy.of(model)
    for site in sites:
        gate = mixture.gate_of(site.layer)
        if gate is not None:
            where = f"in layer {site.layer}"
            _same(f"number of experts {where}", site.num_experts, len(gate.experts), mixture)
            _same(f"top-k {where}", own.policy.top_k, gate.top_k, mixture)
            if not own.equals(gate.stable.policy):
                served = gate.stable.policy.to_dict()
                _same(f"policy {where}", own.policy.to_dict(), served, mixture)
    return {gate.name: gate.sha256 for gate in mixture.gates}


def check_digests(model: Any, sites: Sequence[Site], mixture: Mixture) -> dict[str, str]:
    """Return the digest of the model's own version of each gate, by name.

    Without those of which it has none that the mixture names (one that was retired); they are to
    be fetched. A gate that the model does not show is taken for stable. Raises Mismatch unless the
    trunk is bit for bit that of the mixture; where the mixture says nothing of its trunk, a gate
    must show that they belong together.
    """
    if mixture.trunk_sha256:
        _same("trunk", trunk_sha256(_trunk(model)), mixture.trunk_sha256, mixture)
    own, policy = {}, OwnPolicy.of(model)
    for gate in mixture.gates:
        shown = {site.layer: site.learned for site in sites if site.layer in gate.layers}
        if len(shown) != len(gate.layers) or not all(WEIGHT in held for held in shown.values()):
            own[gate.name] = gate.sha256
            continue
        found = [v for v in gate.versions if policy.equals(v.policy) and _is(v, shown)]
        if found:
            own[gate.name] = found[0].sha256
        elif not mixture.trunk_sha256:
            seen = _gate_digests(gate.stable, shown)[0] if _fits(gate.stable, shown) else "another"
            _same(f"gate {gate.name}", seen, gate.sha256, mixture)
    return own


def _is(version: GateVersion, shown: Shown) -> bool:
    """Say whether these are the tensors of a version, bit for bit."""
    return _fits(version, shown) and version.sha256 in _gate_digests(version, shown)


def _fits(version: GateVersion, shown: Shown) -> bool:
    return all(len(held[WEIGHT]) == len(version.experts) for held in shown.values())


def _trunk(model: Any) -> Iterator[Tensor]:
    for name, tensor in model.state_dict().items():
        if is_trunk(name):
            plain = tensor.detach().cpu().contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy()
            yield name, data, tuple(tensor.shape), str(tensor.dtype)


def _gate_digests(gate: GateVersion, shown: Shown) -> list[str]:
    """Return the digests of such a gate as an artifact, in its dtype and those without loss."""
    own = element_type(next(iter(shown.values()))[WEIGHT].dtype).name
    names = [own, *(e.name for e in ELEMENT_TYPES if e.name != own)]
    return [digest for name in names if (digest := _gate_digest(gate, name, shown)) is not None]


def _gate_digest(gate: GateVersion, dtype: str, shown: Shown) -> str | None:
    """Return the digest in one dtype; None where that loses something, or something is missing."""
    hidden_size = next(iter(shown.values()))[WEIGHT].shape[1]
    metadata = GateMetadata(tuple(sorted(shown)), hidden_size, gate.experts, gate.policy, dtype)
    arrays = {}
    for name in metadata.shapes:
        _, layer, part = name.split(".")
        tensor = shown[int(layer)].get(part)
        if tensor is None:
            return None
        cast = tensor.detach().to(torch_dtype(by_name(metadata.dtype_of(name))))
        if not torch.equal(cast.to(tensor.dtype), tensor):
            return None
        arrays[name] = to_numpy(cast)
    return sha256_of(metadata, arrays.__getitem__)


def _same(what: str, own: object, served: object, mixture: Mixture) -> None:
    if own != served:
        raise Mismatch(
            f"the model's {what} is {own}; mixture {mixture.name} serves {served}",
            epoch=mixture.epoch,
        )
