"""Draws trees and tables as text for a terminal, with icons, colour and ages; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from kubectl_moe.health import Health
from kubectl_moe.tree import Node

ICONS = {
    Health.HEALTHY: ("✔", "32"),
    Health.PROGRESSING: ("◌", "36"),
    Health.PAUSED: ("॥", "33"),
    Health.ROLLED_BACK: ("⚠", "33"),
    Health.DEGRADED: ("✖", "31"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """Whether to use colour, and what time it is."""

    colour: bool
    now: datetime

    def icon(self, health: Health) -> str:
        icon, code = ICONS[health]
        return f"\x1b[{code}m{icon}\x1b[0m" if self.colour else icon


def age(created: str, now: datetime) -> str:
    """Return an age as kubectl writes it: 45s, 12m, 3h, 5d; '-' where it is unknown."""
    if not created:
        return "-"
    seconds = int((now - datetime.fromisoformat(created)).total_seconds())
    for unit, size, bound in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < bound:
            return f"{max(seconds, 0) // size}{unit}"
    return f"{seconds // 86_400}d"


def tree(root: Node, style: Style) -> str:
    """Return the tree as lines: NAME KIND STATUS AGE INFO."""
    rows = [
        (
            f"{prefix}{style.icon(node.health)} {node.name}",
            node.kind,
            node.status,
            age(node.created, style.now),
            node.info,
        )
        for prefix, node in _walk(root)
    ]
    return table(("NAME", "KIND", "STATUS", "AGE", "INFO"), rows)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return columns aligned with three spaces between; colour codes count as nothing."""
    lines = [tuple(headers), *(tuple(row) for row in rows)]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "   ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _walk(node: Node, lead: str = "", prefix: str = "") -> Iterator[tuple[str, Node]]:
    yield prefix, node
    for index, child in enumerate(node.children):
        last = index == len(node.children) - 1
        branch, follow = ("└── ", "    ") if last else ("├── ", "│   ")
        yield from _walk(child, lead + follow, lead + branch)


def _width(text: str) -> int:
    shown = 0
    escaped = False
    for character in text:
        if character == "\x1b":
            escaped = True
        elif escaped:
            escaped = character != "m"
        else:
            shown += 1
    return shown
