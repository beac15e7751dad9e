"""Draws what is true at one time: a number, a table, or a map of layers and experts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from dashboards.pictures import svg
from dashboards.pictures.choices import natural
from dashboards.pictures.prometheus import Series
from dashboards.pictures.sheets import Panel
from dashboards.pictures.svg import Box
from dashboards.pictures.units import shown

_ROW: Final = 20
_LABEL: Final = 48

Cells = Mapping[str, str | float]


def draw_number(box: Box, panel: Panel, series: Sequence[Series]) -> Iterator[str]:
    """Draw the last value of the first series, on the colour that it has."""
    value = series[0].last
    colour = panel.colour(value)
    plot = box.inside(6, 2, 6, 6)
    yield svg.rect(plot, svg.COLOURS[colour], radius=3)
    middle = (plot.x + plot.width // 2, plot.y + plot.height // 2 + 13)
    said = shown(value, panel.unit, panel.texts)
    yield svg.text(middle, said, 36, _on(colour), "middle", bold=True)


def draw_table(box: Box, panel: Panel, answers: Sequence[Sequence[Series]]) -> Iterator[str]:
    """Draw a row for each set of labels, and a column for each label and each query."""
    labels, rows = merged(panel, answers)
    columns = (*labels, *(target.legend for target in panel.targets))
    width = (box.width - 16) // len(columns)
    room = max((box.height - 14) // _ROW - 1, 1)
    many = len(rows) > room
    yield from _cells(box, panel, columns, width, 0, {name: name for name in columns})
    for i, row in enumerate(rows[: room - 1 if many else room], start=1):
        yield from _cells(box, panel, columns, width, i, row)
    if many:
        said = f"+ {len(rows) - room + 1} more"
        yield svg.text((box.x + 12, box.y + 14 + room * _ROW), said, fill=svg.FAINT)


def merged(
    panel: Panel, answers: Sequence[Sequence[Series]]
) -> tuple[tuple[str, ...], tuple[Cells, ...]]:
    """Return the labels, and the rows: what several queries say of the same labels is one row."""
    rows: dict[frozenset[tuple[str, str]], dict[str, str | float]] = {}
    for target, answer in zip(panel.targets, answers, strict=True):
        for series in answer:
            labels = {k: v for k, v in series.labels.items() if k != "__name__"}
            row = rows.setdefault(frozenset(labels.items()), dict(labels))
            row[target.legend] = series.last
    names = sorted({name for labels in rows for name, _ in labels})
    ordered = sorted(rows.values(), key=lambda row: [natural(str(row.get(n, ""))) for n in names])
    return tuple(names), tuple(ordered)


def _cells(
    box: Box, panel: Panel, columns: Sequence[str], width: int, row: int, cells: Cells
) -> Iterator[str]:
    top = box.y + row * _ROW
    for i, name in enumerate(columns):
        cell = Box(box.x + 8 + i * width, top, width, _ROW)
        value, fill = cells.get(name, ""), svg.INK
        if isinstance(value, float):
            if name in panel.coloured:
                colour = panel.colour(value)
                yield svg.rect(cell.inside(1, 1, 1, 1), svg.COLOURS[colour])
                fill = _on(colour)
            value = shown(value, panel.unit, panel.texts)
        said = svg.cut(value, width - 10)
        yield svg.text((cell.x + 4, top + 14), said, 11, fill, bold=row == 0)
    if row:
        yield svg.line((box.x + 8, top), (box.right - 8, top), svg.GRID)


def draw_matrix(box: Box, panel: Panel, series: Sequence[Series]) -> Iterator[str]:
    """Draw a cell for each layer and expert, in the colour of its value."""
    found = {(s.labels.get("layer", ""), s.labels.get("expert", "")): s.last for s in series}
    rows = sorted({layer for layer, _ in found}, key=natural)
    columns = sorted({expert for _, expert in found}, key=natural)
    plot = box.inside(_LABEL, 20, 12, 10)
    width, height = plot.width / len(columns), min(plot.height / len(rows), 34.0)
    yield from _matrix_heads(plot, rows, columns, width, height)
    for (layer, expert), value in sorted(found.items()):
        left, top = columns.index(expert) * width, rows.index(layer) * height
        right, bottom = left + width, top + height
        size = (round(right) - round(left), round(bottom) - round(top))
        cell = Box(plot.x + round(left), plot.y + round(top), *size)
        colour = panel.colour(value) if math.isfinite(value) else "transparent"
        yield svg.rect(cell.inside(0, 0, 1, 1), svg.COLOURS[colour], svg.GRID)
        said = shown(value, panel.unit)
        if cell.width > svg.width_of(said) + 2 and cell.height > 14:
            middle = (cell.x + cell.width // 2, cell.y + cell.height // 2 + 4)
            yield svg.text(middle, said, 11, _on(colour), "middle")


def _matrix_heads(
    plot: Box, rows: Sequence[str], columns: Sequence[str], width: float, height: float
) -> Iterator[str]:
    """Name rows and columns, as many as can be read."""
    longest = max(svg.width_of(name) for name in columns) + 6
    for i, name in list(enumerate(columns))[:: max(math.ceil(longest / width), 1)]:
        yield svg.text((plot.x + round((i + 0.5) * width), plot.y - 6), name, 11, anchor="middle")
    for i, name in list(enumerate(rows))[:: max(math.ceil(14 / height), 1)]:
        yield svg.text((plot.x - 8, plot.y + round((i + 0.5) * height) + 4), name, anchor="end")


def _on(colour: str) -> str:
    """Return what can be read on a colour."""
    return svg.INK if colour in ("yellow", "transparent", "blue") else "#fff"
