"""Makes other versions of one expert, and the dense stand-in, from the stored checkpoint.

    python -m examples.tiny.versions better     # fine-tuned on more text of its domain
    python -m examples.tiny.versions worse      # fine-tuned on the same text, its bytes shuffled
    python -m examples.tiny.versions broken     # one tensor full of NaN; made when it is needed
    python -m examples.tiny.versions dense      # distilled: stands in for whichever expert is out

Only that one expert's weights differ from the checkpoint's. The held-out text is never trained on;
it is measured before and after, on the weights as stored.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import MixtralForCausalLM

from examples.tiny import outage
from examples.tiny.domains import DOMAINS, EXPERT_OF, EXPERTS
from examples.tiny.model import (
    CONTEXT,
    VERSIONS,
    bits_per_byte,
    expert_tensors,
    heldout,
    load,
    replace_expert,
    save_version,
)
from examples.tiny.train import Outages, Texts
from examples.tiny.tuning import append_expert, tune

DEFAULT_EXPERT = 3
STEPS = {"better": 400, "worse": 40, "dense": 250}
RATE = {"better": 2e-3, "worse": 7e-4, "dense": 2e-3}


def shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return `rows` (N, L) with the bytes of each row in a random order."""
    order = torch.rand(rows.shape, generator=generator).argsort(-1)
    return rows.gather(-1, order)


def next_byte_loss(model: MixtralForCausalLM, rows: Tensor) -> Tensor:
    """Return the mean next-byte cross-entropy of `rows` (N, CONTEXT + 1), in nats."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def own_text(
    model: MixtralForCausalLM, expert: int, seed: int, wrong: bool = False
) -> Iterator[Tensor]:
    """Yield losses on the expert's domain; a row of each other domain keeps it of use there.

    With `wrong`, the bytes of the domain's own rows are in random order.
    """
    domain = DOMAINS[expert]
    others = tuple(d for d in DOMAINS if d != domain)
    texts, generator = Texts(DOMAINS, seed), torch.Generator().manual_seed(seed)
    while True:
        own = texts.batch(domain, 12)
        if wrong:
            own = shuffled(own, generator)
        yield next_byte_loss(model, torch.cat([own, *(texts.batch(d, 1) for d in others)]))


def stand_in_losses(model: MixtralForCausalLM, dense: int, seed: int) -> Iterator[Tensor]:
    """Yield KL(healthy || one expert out, answered by `dense`) per byte, in nats.

    In each row another expert is out: in most rows the one of the row's domain, else any.
    """
    texts, generator = Texts(DOMAINS, seed), torch.Generator().manual_seed(seed)
    outages = Outages(1.0, 0.0, seed)  # every row is answered by the backup
    own = torch.tensor([EXPERT_OF[d] for d in DOMAINS]).repeat_interleave(2)
    while True:
        rows = torch.cat([texts.batch(domain, 2) for domain in DOMAINS])[:, :-1]
        with torch.no_grad():
            healthy = model(input_ids=rows, use_cache=False).logits.log_softmax(-1)
        other = torch.randint(EXPERTS, own.shape, generator=generator)
        lost = torch.where(torch.rand(own.shape, generator=generator) < 0.8, own, other)
        lost = lost.repeat_interleave(CONTEXT)
        outages.draw(lost, torch.full_like(lost, dense))
        hooks = [gate.register_forward_hook(outages) for gate in outage.gates(model)]
        without = model(input_ids=rows, use_cache=False).logits.log_softmax(-1)
        for hook in hooks:
            hook.remove()
        yield functional.kl_div(without, healthy, log_target=True, reduction="sum") / rows.numel()


def report(losses: Iterator[float], unit: str) -> None:
    """Run a training to its end, printing now and then."""
    began = time.monotonic()
    for step, loss in enumerate(losses):
        if step % 50 == 0:
            bits = loss / math.log(2)
            print(
                f"{time.monotonic() - began:6.0f} s  step {step:4}  {bits:.3f} {unit}", flush=True
            )


def make_tuned(kind: str, expert: int, steps: int, seed: int) -> dict[str, Tensor]:
    """Return a better or worse version of `expert`."""
    model = load(torch.float32)
    losses = own_text(model, expert, seed, wrong=kind == "worse")
    report(tune(model, expert, losses, steps, RATE[kind]), "bits per byte")
    return expert_tensors(model, expert)


def make_broken(expert: int) -> dict[str, Tensor]:
    """Return `expert` with one tensor of its second layer full of NaN."""
    named = expert_tensors(load(torch.float32), expert)
    return {
        n: t.fill_(math.nan) if ".layers.1." in n and ".w2." in n else t for n, t in named.items()
    }


def make_dense(steps: int, seed: int) -> dict[str, Tensor]:
    """Return the dense stand-in, its tensors named as if it were the only expert, number 0."""
    model = load(torch.float32)
    number = append_expert(model, like=DEFAULT_EXPERT)
    losses = stand_in_losses(model, number, seed)
    report(tune(model, number, losses, steps, RATE["dense"]), "bits per byte away from healthy")
    named = expert_tensors(model, number)
    return {n.replace(f"experts.{number}.", "experts.0."): t for n, t in named.items()}


def print_change(expert: int, named: dict[str, Tensor]) -> None:
    """Print held-out bits per byte with the checkpoint's expert and with `named` in its place."""
    model = load(torch.float32)
    before = {domain: bits_per_byte(model, heldout(domain)) for domain in DOMAINS}
    replace_expert(model, expert, {n: t.to(torch.bfloat16) for n, t in named.items()})
    for domain, bits in before.items():
        after = bits_per_byte(model, heldout(domain))
        print(f"{domain:11} {bits:.3f} -> {after:.3f} ({after - bits:+.3f})")


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("better", "worse", "broken", "dense"))
    parser.add_argument("--expert", type=int, choices=range(EXPERTS), default=DEFAULT_EXPERT)
    parser.add_argument("--steps", type=int, help=f"default {STEPS}")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="the result's bits depend on it")
    parser.add_argument("--out", type=Path, help="default versions/expert-E-KIND.safetensors")
    return parser.parse_args()


def main() -> None:
    """Make one version, measure it, store it."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    kind, expert = arguments.kind, arguments.expert
    steps = arguments.steps or STEPS.get(kind, 0)
    if kind == "dense":
        named = make_dense(steps, arguments.seed)
    elif kind == "broken":
        named = make_broken(expert)
    else:
        named = make_tuned(kind, expert, steps, arguments.seed)
        print_change(expert, named)
    name = "dense" if kind == "dense" else f"expert-{expert}-{kind}"
    out = arguments.out or VERSIONS / f"{name}.safetensors"
    save_version(out, named)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
