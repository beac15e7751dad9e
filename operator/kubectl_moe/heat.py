"""Draws how gates spread rows over experts: a heat map of layers, or the experts of one layer.

Lines fit 100 columns, also with 64 experts; of more, neighbours share a cell. Decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from kubectl_moe.gate_loads import Load
from kubectl_moe.routing_view import Routed, most, uneven

WIDTH: Final = 100
_CELLS: Final = 64
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_BAR: Final = 40
_NOTHING: Final = "no rows"


def heat_map(one: Routed, top: int, *, colour: bool) -> str:
    """Return a line for each of the `top` least even layers; says how many are left out."""
    lines = [title(one)]
    if not one.loads:
        return f"{lines[0]}: {_NOTHING}"
    layers, per_cell = uneven(one, top), math.ceil(len(one.experts) / _CELLS)
    cells = math.ceil(len(one.experts) / per_cell)
    lines.append(f"LAYER  ROWS {'LOAD':{max(cells, 4)}} BITS GATE OVER MOST")
    lines += [_line(one, layer, per_cell, colour=colour) for layer in layers]
    if left := len(one.loads) - len(layers):
        lines.append(f"{left} more layers, which are more even; --top or --layer shows them")
    return "\n".join(lines)


def experts(one: Routed, layer: int, top: int) -> str:
    """Return a line for each of the `top` most loaded experts; says how many are left out."""
    load = one.loads.get(layer)
    if load is None:
        return f"{title(one)}: {_NOTHING} in layer {layer}"
    gate = "" if load.gate_entropy is None else f", gate {load.gate_entropy:.2f} bits"
    lines = [
        f"{title(one)}: layer {layer}, {load.rows:,} rows",
        f"load {load.entropy:.2f} of {math.log2(len(one.experts)):.2f} bits{gate}, "
        f"overflow {_percent(load.overflow)}",
        f"{'EXPERT':24}  {'ROWS':>12} OF ROWS {'OF EVEN':>8}",
    ]
    shown = most(one, layer, top)
    largest = max(load.pairs) or 1
    for expert in shown:
        count, share = load.pairs[expert], load.shares[expert]
        bar = "█" * round(_BAR * count / largest)
        lines.append(
            f"{_cut(one.experts[expert], 24):24}  {count:12,} {_percent(count / load.rows):>7}"
            f" {share * len(one.experts):7.2f}×  {bar}".rstrip()
        )
    if left := len(load.pairs) - len(shown):
        rest = sum(load.pairs) - sum(load.pairs[expert] for expert in shown)
        share_left = _percent(rest / max(sum(load.pairs), 1))
        lines.append(f"{left} more experts, together {share_left} of the load; --top shows them")
    return "\n".join(lines)


def legend(shown: Sequence[Routed]) -> str:
    """Return what the signs of a heat map mean."""
    wide = max((math.ceil(len(one.experts) / _CELLS) for one in shown), default=1)
    several = f"; a cell is the most loaded of {wide} experts" if wide > 1 else ""
    return "\n".join(
        (
            f"LOAD by expert: ▄ an even share, █ twice it or more, · none{several}",
            "BITS: entropy of the load, log2(experts) at most; GATE: mean entropy of the gate for",
            "a row, where routers apply it; OVER: beyond a capacity of 1.2; MOST: of rows",
        )
    )


def title(one: Routed) -> str:
    role = f"{one.role}, in the shadow" if one.shadow else one.role
    return f"{one.gate}: {one.version} ({role}), top {one.top_k} of {len(one.experts)}"


def _line(one: Routed, layer: int, per_cell: int, *, colour: bool) -> str:
    load = one.loads[layer]
    cells = [_cell(ratio, colour=colour) for ratio in _ratios(load, per_cell)]
    wide = max(len(cells), 4)
    drawn = "".join(cells) + " " * (wide - len(cells))
    gate = "-" if load.gate_entropy is None else f"{load.gate_entropy:.2f}"
    over, largest = _percent(load.overflow), _most(one, layer, min(WIDTH - 28 - wide, 24))
    numbers = f"{load.entropy:4.2f} {gate:>4} {over:>4} {largest}"
    return f"{layer:5} {_count(load.rows):>5} {drawn} {numbers}"


def _ratios(load: Load, per_cell: int) -> Iterator[float]:
    """Give each cell's share against an even one."""
    ratios = [share * len(load.pairs) for share in load.shares]
    for first in range(0, len(ratios), per_cell):
        yield max(ratios[first : first + per_cell])


def _cell(ratio: float, *, colour: bool) -> str:
    block = _BLOCKS[min(max(math.ceil(4 * ratio), 1), 8) - 1] if ratio else "·"
    code = "31" if ratio >= 2 else "36" if ratio <= 0.25 else ""
    return f"\x1b[{code}m{block}\x1b[0m" if colour and code else block


def _most(one: Routed, layer: int, room: int) -> str:
    (expert,) = most(one, layer, 1)
    load = one.loads[layer]
    share = _percent(load.pairs[expert] / load.rows)
    return f"{_cut(one.experts[expert], max(room - len(share) - 1, 1))} {share}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _count(number: int) -> str:
    """Return at most five characters: 12345, 123k, 12M."""
    for unit, size in (("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)):
        if number < 10_000 * size:
            return f"{number // size}{unit}"
    return f"{number // 10**12}T"


def _percent(share: float) -> str:
    """Return at most four characters: 0.4%, 12%, 100%."""
    percent = 100 * share
    return f"{percent:.1f}%" if percent < 9.95 else f"{percent:.0f}%"
