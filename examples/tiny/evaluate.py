"""Measures the stored example model on held-out text, and prints the tables of README.md.

    python -m examples.tiny.evaluate

Every number is computed from the stored bfloat16 weights with transformers' `eager` experts, in
float32 unless asked otherwise. Nothing is trained or written.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import MixtralForCausalLM

from examples.tiny import outage
from examples.tiny.domains import DOMAINS, EXPERTS
from examples.tiny.model import (
    CHECKPOINT,
    CONTEXT,
    VERSIONS,
    bits_per_byte,
    expert_tensors,
    heldout,
    load,
    load_version,
    replace_expert,
)

Rows = list[list[str]]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its columns aligned."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


@torch.inference_mode()
def routing_share(model: MixtralForCausalLM, data: bytes) -> Tensor:
    """Return the share of gate weight that each expert gets on `data`, mean of layers, (E,)."""
    total = torch.zeros(EXPERTS)

    def count(_module: nn.Module, _args: tuple[Tensor, ...], out: outage.GateOutput) -> None:
        total.index_add_(0, out[2].flatten(), out[1].flatten().float())

    hooks = [gate.register_forward_hook(count) for gate in outage.gates(model)]
    tokens = torch.tensor(list(data[: len(data) // CONTEXT * CONTEXT])).view(-1, CONTEXT)
    model(input_ids=tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    return total / total.sum()


class Bench:
    """One loaded model and the held-out text; puts back what a measurement changed."""

    def __init__(self, model: MixtralForCausalLM, limit: int) -> None:
        self.model = model
        self.texts = {domain: heldout(domain)[:limit] for domain in DOMAINS}
        self.healthy = {domain: self.bits(domain) for domain in DOMAINS}

    def bits(self, domain: str) -> float:
        """Return bits per byte on `domain` of the model as it is now."""
        return bits_per_byte(self.model, self.texts[domain])

    def out(self, domain: str, expert: int, rung: str, backup: int = 0) -> float:
        """Return bits per byte on `domain` with `expert` out, answered on `rung`."""
        with outage.without(self.model, expert, rung, backup):
            return self.bits(domain)

    def replaced(self, domain: str, expert: int, version: str) -> float:
        """Return bits per byte on `domain` with a stored version in the place of `expert`."""
        before = expert_tensors(self.model, expert)
        replace_expert(self.model, expert, load_version(version))
        try:
            return self.bits(domain)
        finally:
            replace_expert(self.model, expert, before)


def rest(expert: int) -> list[int]:
    """Return every expert but `expert`."""
    return [other for other in range(EXPERTS) if other != expert]


def print_domains(bench: Bench) -> None:
    """Print held-out bits per byte by domain."""
    print("\n## Held-out bits per byte\n")
    rows = [[d, f"{len(bench.texts[d]):,}", f"{bench.healthy[d]:.3f}"] for d in DOMAINS]
    mean = sum(bench.healthy.values()) / len(DOMAINS)
    print(table(["domain", "bytes", "bits per byte"], [*rows, ["mean", "", f"{mean:.3f}"]]))


def print_routing(bench: Bench) -> None:
    """Print the share of the gate's weight by domain and expert."""
    print("\n## What each expert is for: share of the gate's weight, %\n")
    rows = []
    for domain in DOMAINS:
        share = routing_share(bench.model, bench.texts[domain])
        rows.append([domain, *(f"{100 * s:.0f}" for s in share.tolist())])
    print(table(["domain", *map(str, range(EXPERTS))], rows))


def print_knockout(bench: Bench) -> None:
    """Print by how much bits per byte rise with an expert out, the gate renormalised."""
    print("\n## Knock-out: bits per byte added when an expert is out (renormalised)\n")
    rows = []
    for domain in DOMAINS:
        added = (
            bench.out(domain, e, "renormalise") - bench.healthy[domain] for e in range(EXPERTS)
        )
        rows.append([domain, *(f"{a:+.3f}" for a in added)])
    print(table(["domain", *map(str, range(EXPERTS))], rows))


def print_backups(bench: Bench) -> dict[int, int]:
    """Print bits per byte for every backup of every expert, and return the best ones."""
    print("\n## Which backup: bits per byte on the expert's own domain, by backup\n")
    best, rows = {}, []
    for expert, domain in enumerate(DOMAINS):
        found = {b: bench.out(domain, expert, "backup", b) for b in rest(expert)}
        best[expert] = min(found, key=lambda b: found[b])
        cells = [f"{found[b]:.3f}" if b in found else "–" for b in range(EXPERTS)]
        rows.append([f"{expert} {domain}", *cells, str(best[expert])])
    print(table(["expert", *map(str, range(EXPERTS)), "best"], rows))
    return best


def print_ladder(bench: Bench, best: dict[int, int]) -> None:
    """Print bits per byte at each rung with the domain's own expert out."""
    print("\n## The failover ladder: bits per byte with the domain's expert out\n")
    rows, sums = [], [0.0] * 5
    for expert, domain in enumerate(DOMAINS):
        bits = [
            bench.healthy[domain],
            bench.out(domain, expert, "backup", best[expert]),
            bench.replaced(domain, expert, "dense"),
            bench.out(domain, expert, "renormalise"),
            bench.out(domain, expert, "residual"),
        ]
        sums = [s + b for s, b in zip(sums, bits, strict=True)]
        rows.append([f"{expert} {domain}", *(f"{b:.3f}" for b in bits)])
    rows.append(["mean", *(f"{s / len(rows):.3f}" for s in sums)])
    print(table(["expert out", "healthy", "backup", "dense", "renormalise", "residual"], rows))


def print_versions(bench: Bench, expert: int) -> None:
    """Print bits per byte with each stored version of `expert`."""
    names = sorted(p.stem for p in VERSIONS.glob(f"expert-{expert}-*.safetensors"))
    print(f"\n## Versions of expert {expert}: bits per byte\n")
    rows = [
        [d, f"{bench.healthy[d]:.3f}", *(f"{bench.replaced(d, expert, n):.3f}" for n in names)]
        for d in DOMAINS
    ]
    print(table(["domain", "checkpoint", *names], rows))


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description="Measure the example model.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--limit", type=int, default=1 << 20, help="bytes of each held-out text")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load(getattr(torch, arguments.dtype), arguments.checkpoint)
    model.set_experts_implementation("eager")
    bench = Bench(model, arguments.limit)
    print_domains(bench)
    print_routing(bench)
    print_knockout(bench)
    best = print_backups(bench)
    if (VERSIONS / "dense.safetensors").exists():
        print_ladder(bench, best)
    for expert in range(EXPERTS):
        if any(VERSIONS.glob(f"expert-{expert}-*.safetensors")):
            print_versions(bench, expert)


if __name__ == "__main__":
    main()
