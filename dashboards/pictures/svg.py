"""Pieces of SVG as text: whole pixels, no scripts, no fonts of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

COLOURS: Final = {
    "green": "#56a64b",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#e02f44",
    "blue": "#8ab8ff",
    "transparent": "none",
}
INK: Final = "#24292e"
FAINT: Final = "#6e7680"
GRID: Final = "#e4e7eb"
# A letter of a sans-serif font is about so wide, in its size.
_LETTER: Final = 0.56

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    def inside(self, left: int, top: int, right: int, bottom: int) -> Box:
        """Return it without so much of each side."""
        width, height = self.width - left - right, self.height - top - bottom
        return Box(self.x + left, self.y + top, max(width, 1), max(height, 1))


def rect(box: Box, fill: str, stroke: str = "none", radius: int = 0) -> str:
    round_ = f' rx="{radius}"' if radius else ""
    edge = f' stroke="{stroke}"' if stroke != "none" else ""
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'
        f' fill="{fill}"{edge}{round_}/>'
    )


def text(
    at: Point, said: str, size: int = 11, fill: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    weight = ' font-weight="600"' if bold else ""
    style = f' font-size="{size}" fill="{fill}"{where}{weight}'
    return f'<text x="{at[0]}" y="{at[1]}"{style}>{escape(said)}</text>'


def line(begin: Point, end: Point, stroke: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    ends = f'x1="{begin[0]}" y1="{begin[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {ends} stroke="{stroke}"{dash}/>'


def path(runs: Iterable[Sequence[Point]], stroke: str) -> str:
    """Return lines through points, each run by itself; a run of one point is a dot."""
    drawn = "".join(_run(straightened(run)) for run in runs)
    return f'<path d="{drawn}" fill="none" stroke="{stroke}"/>' if drawn else ""


def _run(points: Sequence[Point]) -> str:
    (x, y), *rest = points
    said = [f"M{x} {y}"]
    for right, down in rest or [(x, y)]:
        said.append(f"l{right - x} {down - y}")
        x, y = right, down
    return "".join(said)


def straightened(points: Sequence[Point]) -> list[Point]:
    """Return the points without those that lie on the line between their neighbours."""
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and _on_one_line(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _on_one_line(a: Point, b: Point, c: Point) -> bool:
    turned = (b[0] - a[0]) * (c[1] - b[1]) == (b[1] - a[1]) * (c[0] - b[0])
    onward = (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) > 0
    return turned and onward


def width_of(said: str, size: int = 11) -> int:
    return round(len(said) * size * _LETTER)


def cut(said: str, width: int, size: int = 11) -> str:
    """Return a text that fits, with … where it was cut."""
    letters = max(int(width / (size * _LETTER)), 1)
    return said if len(said) <= letters else f"{said[: letters - 1]}…"


def group(title: str, parts: Iterable[str]) -> str:
    """Return parts that belong together; the title is what a pointer over them is told."""
    return "\n".join(["<g>", f"<title>{escape(title)}</title>", *filter(None, parts), "</g>"])


def document(width: int, height: int, label: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif"'
        f' role="img" aria-label={quoteattr(label)}>'
    )
    return "\n".join([head, *parts, "</svg>", ""])
