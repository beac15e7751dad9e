"""What the tools print: held-out bits before and after, and what experts are used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moe_core.table import Rung
from moe_tuning.measure import Usage
from moe_tuning.outage import Cost

_RUNGS = {
    Rung.DENSE: "Dense: this one stands in",
    Rung.RENORMALISE: "Renormalise: the token's other experts",
    Rung.RESIDUAL: "Residual: nobody",
}


def print_bits(before: Mapping[str, float], after: Mapping[str, float], unit: str) -> None:
    """Print bits per token of each slice, then their mean."""
    print(f"held-out bits per {unit}")
    for name in before:
        _print_line(name, before[name], after[name])
    if len(before) > 1:
        means = (sum(values.values()) / len(before) for values in (before, after))
        _print_line("mean", *means)


def print_usage(experts: Sequence[str], seen: Usage) -> None:
    """Print how much each expert is used, most used first."""
    print("expert    activation %   tokens %")
    found = zip(experts, seen.shares.tolist(), seen.chosen.tolist(), strict=True)
    for name, share, chosen in sorted(found, key=lambda item: -item[1]):
        print(f"{name:<8} {100 * share:13.1f} {100 * chosen:10.1f}")


def print_outages(healthy: Mapping[str, float], costs: Mapping[Rung, Cost], unit: str) -> None:
    """Print what each way to answer for one lost expert costs, and for which expert most."""
    own = sum(healthy.values()) / len(healthy)
    print(f"{f'held-out bits per {unit}, one expert out':<40} mean             worst")
    print(f"  {'none: healthy':<38} {own:.3f}")
    for rung, cost in costs.items():
        worst = f"{cost.bits[cost.worst]:.3f} without {cost.worst}"
        print(f"  {_RUNGS[rung]:<38} {cost.mean:.3f} ({cost.mean - own:+.3f})   {worst}")


def _print_line(name: str, before: float, after: float) -> None:
    print(f"  {name:<16} {before:.3f} -> {after:.3f} ({after - before:+.3f})")
