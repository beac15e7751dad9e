"""`python -m tests.benchmarks.norms`: how much the size of an expert's answers depends on the text.

Mean L2 norm of what each expert of the example model answers to held-out text of one domain, as a
share of that to all domains together; what the limit of MoeExpertNormShifted leaves room for.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from examples.tiny import model as example
from examples.tiny.domains import DOMAINS

_SEQUENCES, _LENGTH, _FEWEST_ROWS = 32, 128, 51

Norms = defaultdict[tuple[str, int], list[float]]  # (domain, expert) -> those of its rows
EXPERTS: Final = range(8)


def main() -> None:
    """Measure and print."""
    norms = measured()
    print(f"| expert | {' | '.join(DOMAINS)} |\n|---|{'---|' * len(DOMAINS)}")
    for expert in EXPERTS:
        mixed = _mean([norm for domain in DOMAINS for norm in norms[domain, expert]])
        shares = (_told(norms[domain, expert], mixed) for domain in DOMAINS)
        print(f"| e{expert} | {' | '.join(shares)} |")


@torch.inference_mode()
def measured() -> Norms:
    """Return the norms of every answer, of all layers, in the order of the rows."""
    model, norms = example.load(torch.float32), Norms(list)
    for domain in DOMAINS:
        hooks = [
            layer.mlp.experts.register_forward_hook(_hook(norms, domain))
            for layer in model.model.layers
        ]
        text = example.heldout(domain)[: _SEQUENCES * _LENGTH]
        model(input_ids=torch.tensor(list(text)).view(_SEQUENCES, _LENGTH), use_cache=False)
        for hook in hooks:
            hook.remove()
    return norms


def _hook(norms: Norms, domain: str) -> Any:
    def note(module: Any, given: tuple[torch.Tensor, ...], answer: object) -> None:
        hidden, index = given[0].reshape(-1, given[0].shape[-1]), given[1]
        for expert in EXPERTS:
            rows = hidden[(index == expert).any(-1)]
            gate, up = F.linear(rows, module.gate_up_proj[expert]).chunk(2, -1)
            answers = F.linear(F.silu(gate) * up, module.down_proj[expert])
            norms[domain, expert] += answers.norm(dim=-1).tolist()

    return note


def _told(norms: list[float], mixed: float) -> str:
    return f"{_mean(norms) / mixed:.2f}" if len(norms) >= _FEWEST_ROWS else "few"


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    main()
