"""The versions of a model's gates as they can be applied here: its own, and those fetched.

An artifact is checked before anything in it is used: its digest, and that it is what the mixture
says of that version. Which session uses which version is decided elsewhere.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from moe_artifacts.artifact import GateArtifact, GateLayer, read_gate
from moe_artifacts.errors import ArtifactError
from moe_artifacts.metadata import WEIGHT
from moe_artifacts.names import GATE_TENSORS
from moe_client.errors import InvalidRequest, MalformedAnswer, Mismatch, NotFound
from moe_client.mixture import Gate, GateVersion, Mixture
from moe_client.own_policy import OwnPolicy
from moe_client.router_module import Forward, copy_router, own_forward
from moe_client.site import Site
from moe_client.tensors import from_bytes
from moe_core.dtypes import by_numpy
from moe_core.kernel import torch_dtype

Routers = Mapping[int, Forward]
"""By layer, what applies one version of a gate there."""


class Gates:
    """Safe from any thread. `own` is the digest of the model's own version, by the gate's name,
    `policy` how its router modules choose."""

    def __init__(
        self,
        sites: Sequence[Site],
        policy: OwnPolicy,
        own: Mapping[str, str],
        fetch: Callable[[str], bytes],
    ) -> None:
        self.own = own
        self._policy = policy
        self._sites = sites
        self._fetch = fetch
        self._plain: Routers = {s.layer: own_forward(s.router) for s in sites if s.router}
        self._fetched: dict[str, GateArtifact] = {}
        self._copies: dict[tuple[str, str], Routers] = {}
        self._lock = threading.Lock()

    def routers(
        self, mixture: Mixture, gate: Gate, version: GateVersion, context: str = ""
    ) -> Routers:
        """Return what applies a version in each layer of its gate, for rows of a context.

        Raises NotFound where no router gives it out any more, Mismatch where it is not what the
        mixture says, InvalidRequest where it does not know the context, and other MoeErrors.
        """
        if not context and version.sha256 == self.own.get(gate.name):
            return self._plain
        key = version.sha256, context
        with self._lock:
            if key not in self._copies:
                self._copies[key] = self._copy(mixture, gate, version, context)
            return self._copies[key]

    def prepare(self, mixture: Mixture) -> None:
        """Fetch what new sessions need that is not the model's own. Raises as `routers` does."""
        for gate in mixture.gates:
            with suppress(NotFound):  # retired meanwhile: sessions will hear of another one
                self.routers(mixture, gate, gate.stable)

    def keep(self, mixture: Mixture) -> None:
        """Forget what the mixture does not name any more."""
        named = {version.sha256 for gate in mixture.gates for version in gate.versions}
        with self._lock:
            self._fetched = {k: v for k, v in self._fetched.items() if k in named}
            self._copies = {k: v for k, v in self._copies.items() if k[0] in named}

    def _copy(self, mixture: Mixture, gate: Gate, version: GateVersion, context: str) -> Routers:
        added = _bias(gate, version, context) if context else None
        own = version.sha256 == self.own.get(gate.name)
        artifact = None if own else self._artifact(mixture, gate, version)
        return {
            site.layer: _copy(
                site,
                gate,
                site.learned if artifact is None else _tensors(artifact.layers[site.layer]),
                version,
                added,
            )
            for site in self._sites
            if site.layer in gate.layers
        }

    def _artifact(self, mixture: Mixture, gate: Gate, version: GateVersion) -> GateArtifact:
        if version.sha256 not in self._fetched:
            self._check_applicable(gate, version)
            artifact = _parse(self._fetch(version.sha256), version)
            check_fits(artifact, mixture, gate, version)
            self._fetched[version.sha256] = artifact
        return self._fetched[version.sha256]

    def _check_applicable(self, gate: Gate, version: GateVersion) -> None:
        if not self._policy.applies(version.policy):
            raise InvalidRequest(
                f"version {version.version} of gate {gate.name} has the policy "
                f"{version.policy.to_dict()}; the model's router modules apply "
                f"{self._policy.policy.to_dict()}, with any topK"
            )


def check_fits(artifact: GateArtifact, mixture: Mixture, gate: Gate, version: GateVersion) -> None:
    """Raise Mismatch unless an artifact is what the mixture says of a version of this gate."""
    own = artifact.metadata
    missing = sorted(set(gate.layers) - set(own.layers))
    for what, seen, served in (
        ("hiddenSize", own.hidden_size, mixture.hidden_size),
        ("experts", list(own.experts), list(version.experts)),
        ("topK", own.policy.top_k, version.top_k),
        ("policy", own.policy.to_dict(), version.policy.to_dict()),
        ("layers", list(own.layers), list(gate.layers) if missing else list(own.layers)),
    ):
        if seen != served:
            raise Mismatch(
                f"gate {gate.name} version {version.version}: the artifact's {what} is {seen}; "
                f"mixture {mixture.name} serves {served}",
                epoch=mixture.epoch,
            )


def _parse(content: bytes, version: GateVersion) -> GateArtifact:
    """Read the bytes; their mapping outlives the file's name."""
    with tempfile.TemporaryDirectory(prefix="moeops-gate-") as directory:
        path = Path(directory) / f"{version.sha256}.safetensors"
        path.write_bytes(content)
        try:
            return read_gate(path, version.sha256)
        except ArtifactError as error:
            raise MalformedAnswer(f"gate version {version.version}: {error}") from None


def _tensors(held: GateLayer) -> dict[str, torch.Tensor]:
    arrays = {name: getattr(held, name) for name in GATE_TENSORS}
    return {
        name: from_bytes(array, torch_dtype(by_numpy(array.dtype)), array.shape)
        for name, array in arrays.items()
        if array is not None
    }


def _bias(gate: Gate, version: GateVersion, context: str) -> torch.Tensor:
    """Return what a context adds to the logits, (E,)."""
    contexts = version.policy.contexts
    bias = None if contexts is None else contexts.bias(context, version.experts)
    if bias is None:
        known = ", ".join(contexts.names) if contexts is not None else "none"
        raise InvalidRequest(
            f"context is {context!r:.80}; version {version.version} of gate {gate.name} "
            f"knows: {known}"
        )
    return torch.tensor(bias)


def _copy(
    site: Site,
    gate: Gate,
    tensors: Mapping[str, torch.Tensor],
    version: GateVersion,
    added: torch.Tensor | None,
) -> Forward:
    own = site.learned
    if site.router is None or WEIGHT not in own:
        raise InvalidRequest(
            f"layer {site.layer}: no router module is found beside {site.path}, so that version "
            f"{version.version} of gate {gate.name} cannot be applied"
        )
    for name, tensor in tensors.items():
        held = own.get(name, tensor).dtype
        if not torch.equal(tensor.to(held).to(tensor.dtype), tensor):
            raise Mismatch(
                f"gate {gate.name} version {version.version} is {tensor.dtype}; the model's gate "
                f"is {held}, which cannot hold its values"
            )
    named = {GATE_TENSORS[name]: tensor for name, tensor in tensors.items()}
    return copy_router(site.router, site.layer, named, version.top_k, added)
