"""Trains the example model: a byte-level Mixtral whose experts each know one kind of text.

    python -m examples.tiny.train

The loss is L = L_next_byte + 0.01 L_balance + 0.3 L_guide. L_balance is Mixtral's own load
balancing loss. L_guide pulls the gate towards the domain's expert until that has `GUIDED` of the
probability, and leaves the rest to the gate: with e(d) the expert of the text's domain d,

    L_guide = mean over tokens and layers of max(0, log GUIDED - log p(e(d) | token))

Conditioning on the known domain is DEMix's idea (Gururangan et al. 2021, arXiv:2108.05036, which
replaces the gate by the domain); here it is only a loss, so that no domain is needed when serving.
In a few sequences of each step the domain's expert is out, answered by its partner or by whoever
is left, so that the model has met the failover ladder before it is served.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MixtralForCausalLM

from examples.tiny import outage
from examples.tiny.corpus import training_text
from examples.tiny.domains import DOMAINS, EXPERT_OF, EXPERTS, partner
from examples.tiny.model import (
    CHECKPOINT,
    CONTEXT,
    bits_per_byte,
    create,
    heldout,
    load,
    save_checkpoint,
)

GUIDED = 0.6
GUIDE_WEIGHT = 0.3
PER_DOMAIN = 2
"""Sequences of each domain in one step."""


class Texts:
    """Training text of some domains; gives random pieces of it, the same for the same seed."""

    def __init__(self, domains: tuple[str, ...], seed: int) -> None:
        self._texts = {
            domain: torch.frombuffer(
                bytearray(training_text(domain, heldout(domain))), dtype=torch.uint8
            )
            for domain in domains
        }
        self._random = torch.Generator().manual_seed(seed)

    def batch(self, domain: str, count: int) -> Tensor:
        """Return (count, CONTEXT + 1) bytes as int64, each row from a random place."""
        text = self._texts[domain]
        starts = torch.randint(len(text) - CONTEXT - 1, (count,), generator=self._random)
        return torch.stack([text[s : s + CONTEXT + 1] for s in starts.tolist()]).long()


class Outages:
    """Takes an expert from some sequences of a batch, as a hook on the gates.

    A share `backed` of the sequences is answered by a backup, a share `dropped` renormalised.
    """

    def __init__(self, backed: float, dropped: float, seed: int) -> None:
        self._shares = backed, dropped
        self._random = torch.Generator().manual_seed(seed)
        self._backed = self._dropped = torch.zeros(0, dtype=torch.bool)
        self._expert = self._backup = torch.zeros(0, dtype=torch.long)

    def draw(self, experts: Tensor, backups: Tensor) -> None:
        """Draw anew for a batch whose token t may lose `experts[t]` to `backups[t]`, both (T,)."""
        luck = torch.rand(len(experts) // CONTEXT, generator=self._random)
        luck = luck.repeat_interleave(CONTEXT)
        backed, dropped = self._shares
        self._backed = (luck < backed)[:, None]
        self._dropped = (luck > 1 - dropped)[:, None]
        self._expert = experts[:, None]
        self._backup = backups[:, None]

    def __call__(
        self, _module: nn.Module, _args: tuple[Tensor, ...], out: outage.GateOutput
    ) -> outage.GateOutput:
        lost = out[2] == self._expert
        out = outage.to_backup(out, lost & self._backed, self._backup)
        return outage.renormalised(out, lost & self._dropped)


def guide_loss(router_logits: tuple[Tensor, ...], experts: Tensor) -> Tensor:
    """Return the mean of max(0, log GUIDED - log p(expert)) for logits (T, E) of each layer."""
    short = []
    for logits in router_logits:
        log_p = functional.log_softmax(logits.float(), -1).gather(1, experts[:, None])
        short.append((math.log(GUIDED) - log_p).clamp_min(0).mean())
    return torch.stack(short).mean()


def rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: a short linear rise, then a cosine to a twentieth."""
    warm = max(1, min(50, steps // 10))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def steps(model: MixtralForCausalLM, arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Train `model` in place, yielding each step's losses."""
    texts = Texts(DOMAINS, arguments.seed)
    outages = Outages(arguments.outage / 2, arguments.outage / 2, arguments.seed + 1)
    for gate in outage.gates(model):
        gate.register_forward_hook(outages)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05)
    guided = torch.tensor([EXPERT_OF[d] for d in DOMAINS]).repeat_interleave(PER_DOMAIN * CONTEXT)
    partners = torch.tensor([partner(e) for e in range(EXPERTS)])[guided]
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, arguments.steps, arguments.rate)
        rows = torch.cat([texts.batch(domain, PER_DOMAIN) for domain in DOMAINS])
        outages.draw(guided, partners)
        out = model(
            input_ids=rows[:, :-1],
            labels=rows[:, :-1],
            shift_labels=rows[:, 1:].contiguous(),
            output_router_logits=True,
            use_cache=False,
        )
        guide = guide_loss(out.router_logits, guided)
        optimizer.zero_grad()
        torch.autograd.backward(out.loss + GUIDE_WEIGHT * guide)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        balance = model.config.router_aux_loss_coef * out.aux_loss.item()
        yield {"bits": (out.loss.item() - balance) / math.log(2), "guide": guide.item()}


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1400, help="default %(default)s")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak rate, %(default)s")
    parser.add_argument("--outage", type=float, default=0.1, help="share of sequences, %(default)s")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="the result's bits depend on it")
    parser.add_argument("--experts", default="grouped_mm", help="implementation in transformers")
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    return parser.parse_args()


def main() -> None:
    """Train, store as bfloat16, and print bits per byte of what was stored."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    model = create(arguments.seed).train()
    model.set_experts_implementation(arguments.experts)
    began = time.monotonic()
    for step, seen in enumerate(steps(model, arguments)):
        if step % 50 == 0 or step == arguments.steps - 1:
            print(
                f"{time.monotonic() - began:6.0f} s  step {step:5}  bits per byte "
                f"{seen['bits']:.3f}  guide {seen['guide']:.3f}",
                flush=True,
            )
    save_checkpoint(model, arguments.out)
    stored = load(torch.bfloat16, arguments.out)
    for domain in DOMAINS:
        print(f"{domain:11} held-out bits per byte {bits_per_byte(stored, heldout(domain)):.3f}")


if __name__ == "__main__":
    main()
