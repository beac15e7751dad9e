"""Says how large the experts of a model are, and writes the manifests that would serve it.

    python -m examples.sizes examples/mixtral-8x7b                  # its table in README.md
    python -m examples.sizes examples/mixtral-8x7b --manifests OUT  # without its weights

Both follow from the model's config.json and the settings beside it. The manifests are those that
`moe split` writes, but for digests and addresses, which are of artifacts that are not there: for
reading, and for `kubectl apply --dry-run=server`.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from moe_artifacts.architecture import Architecture
from moe_artifacts.checkpoint import read_json
from moe_artifacts.index import Entry, Index
from moe_artifacts.manifests import (
    Manifest,
    expert_manifest,
    gate_manifest,
    mixture_manifest,
    read_settings,
    to_yaml,
    with_settings,
)
from moe_artifacts.metadata import GateMetadata
from moe_artifacts.parts import GATE
from moe_core.document import Reader
from moe_core.rows import Role

REPLICAS = 2
NODE_GIB, NODE_CORES, NODE_PODS = 256, 64, 110
_SYSTEM_GIB, _SYSTEM_CORES, _SYSTEM_PODS = 16, 4, 10
"""What a node keeps for itself and others."""
_GIB, _BYTES = 1 << 30, 2  # BFloat16


def architecture(folder: Path) -> Architecture:
    """Read the model's config.json."""
    return Architecture.read(Reader(read_json(folder / "config.json"), "config.json"))


def mixture_name(folder: Path) -> str:
    """Return the name that the settings have for the mixture."""
    return next(name for kind, name in _settings(folder) if kind == "Mixture")


def table(folder: Path) -> str:
    """Return what README.md says of its sizes."""
    model, (cores, request) = architecture(folder), _requests(folder)
    per_layer = 3 * model.hidden_size * model.intermediate_size * _BYTES
    per_expert = per_layer * model.layers
    pods = model.experts * REPLICAS
    per_node = int(
        min(
            (NODE_GIB - _SYSTEM_GIB) // request,
            (NODE_CORES - _SYSTEM_CORES) // cores,
            NODE_PODS - _SYSTEM_PODS,
        )
    )
    nodes = max(REPLICAS, -(-pods // per_node)) + 1
    rows = {
        "layers with experts": f"{model.layers} of {model.decoder_layers}",
        "experts, of which the gate picks": f"{model.experts}, {model.top_k}",
        "one expert in one layer": f"{per_layer / 1e6:,.1f} MB",
        "one expert: its artifact, and its weights in memory": f"{per_expert / _GIB:.2f} GiB",
        "all experts, stored once": f"{per_expert * model.experts / _GIB:,.0f} GiB",
        "cores and memory that a pod requests": f"{cores}, {request:g} GiB",
        f"pods, with {REPLICAS} replicas each": f"{pods}",
        f"pods on a node of {NODE_CORES} cores and {NODE_GIB} GiB": f"{per_node}",
        "nodes, one of them for rollouts and failures": f"{nodes}",
        "bytes of hidden states for a token, to routers and back": (
            f"{2 * model.layers * model.hidden_size * _BYTES / 1e6:.2f} MB"
        ),
    }
    lines = [f"| {what} | {value} |" for what, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines, ""])


def _requests(folder: Path) -> tuple[int, float]:
    """Return the cores and the GiB that a worker's pod requests."""
    mixture = next(body for (kind, _), body in _settings(folder).items() if kind == "Mixture")
    requests = mixture["spec"]["workers"]["resources"]["requests"]
    memory = str(requests["memory"])
    return int(requests["cpu"]), int(memory[:-2]) / {"Gi": 1, "Mi": 1024}[memory[-2:]]


def manifests(folder: Path) -> Iterator[tuple[str, Manifest]]:
    """Give the objects that serve the model, each with its file's name."""
    model, settings = architecture(folder), _settings(folder)
    ids = tuple(f"e{number}" for number in range(model.experts))
    layers = tuple(range(model.layers))
    entries = tuple(_entry(name, mixture_name(folder), layers) for name in (*ids, GATE))
    index = Index(
        mixture=mixture_name(folder),
        hidden_size=model.hidden_size,
        layers=model.layers,
        dtype="BFloat16",
        trunk_sha256=_digest("trunk"),
        entries=entries,
        trunk_uri="file:///moe/artifacts/trunk",
    )
    gate = GateMetadata(layers, model.hidden_size, ids, model.policy, "BFloat16")
    yield "mixture", with_settings(mixture_manifest(index), settings)
    for entry in entries:
        is_gate = entry.name == GATE
        made = (
            gate_manifest(index, entry, gate)
            if is_gate
            else expert_manifest(index, entry, REPLICAS)
        )
        yield entry.name, with_settings(made, settings)


def _entry(name: str, mixture: str, layers: tuple[int, ...]) -> Entry:
    role, digest = None if name == GATE else Role.ROUTED, _digest(f"{mixture} {name}")
    uri = f"file:///moe/artifacts/{name}-{digest[:10]}.safetensors"
    return Entry(name, role, "v1", digest, 0, uri, layers, None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _settings(folder: Path) -> Mapping[tuple[str, str], Manifest]:
    path = folder / "settings.yaml"
    return read_settings(path.read_text(), str(path))


def main() -> None:
    """Print the table, or write the manifests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="such as examples/mixtral-8x7b")
    parser.add_argument("--manifests", type=Path, metavar="OUT", help="write them there instead")
    given = parser.parse_args()
    if given.manifests is None:
        print(table(given.folder), end="")
        return
    given.manifests.mkdir(parents=True, exist_ok=True)
    for name, manifest in manifests(given.folder):
        (given.manifests / f"{name}.yaml").write_text(to_yaml([manifest]))


if __name__ == "__main__":
    main()
