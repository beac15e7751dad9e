"""Draws series over time: lines with axes, thresholds and a legend, or bars of states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dashboards.pictures import svg
from dashboards.pictures.choices import named, natural
from dashboards.pictures.prometheus import Series, Span
from dashboards.pictures.sheets import Panel
from dashboards.pictures.svg import Box, Point
from dashboards.pictures.units import axis, shown

_PALETTE: Final = (
    "#1f78c1", "#e0752d", "#508642", "#bf1b00", "#705da0", "#0a8a8a", "#c15c17", "#890f02",
    "#447ebc", "#cca300", "#6d1f62", "#3f6833", "#99440a", "#2f575e", "#e24d42", "#7eb26d",
    "#962d82", "#58140c", "#64b0c8", "#aea2e0",
)  # fmt: skip
_LEFT: Final = 62
_LEGEND_LINE: Final = 15
_LEGEND_LINES: Final = 3
_TIMES: Final = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Named:
    """A series, what it is called and in which colour it is drawn."""

    name: str
    colour: str
    series: Series


def called(panel: Panel, answers: Sequence[Sequence[Series]]) -> tuple[Named, ...]:
    """Return the series of all queries by name, each with a colour of its own while there are."""
    found = [
        (named(target.legend, series.labels), series)
        for target, answer in zip(panel.targets, answers, strict=True)
        for series in answer
    ]
    found.sort(key=lambda one: natural(one[0]))
    return tuple(Named(n, _PALETTE[i % len(_PALETTE)], s) for i, (n, s) in enumerate(found))


def draw_lines(box: Box, panel: Panel, series: Sequence[Named], span: Span) -> Iterator[str]:
    """Draw values from zero on."""
    legend = tuple(_legend(box, series))
    plot = box.inside(_LEFT, 6, 12, 20 + _LEGEND_LINE * len({y for _, y, _, _ in legend}))
    values = [v for one in series for _, v in one.series.points if math.isfinite(v)]
    marks = axis(max(values, default=0.0), panel.unit)
    yield from _value_axis(plot, panel, marks)
    yield from _time_axis(plot, span, box)
    for one in series:
        yield svg.path(_runs(one.series, plot, span, marks[-1]), one.colour)
    for x, y, name, colour in legend:
        if colour:
            yield svg.line((x, y - 4), (x + 12, y - 4), colour)
        yield svg.text((x + 16, y), name, 10)


def draw_states(box: Box, panel: Panel, series: Sequence[Named], span: Span) -> Iterator[str]:
    """Draw a bar for each series, in the colour of its value."""
    label = min(box.width // 3, max(svg.width_of(one.name) for one in series) + 8)
    plot = box.inside(label, 6, 12, 20)
    height = min(plot.height // len(series), 34)
    for i, one in enumerate(series):
        bar = Box(plot.x, plot.y + i * height, plot.width, max(height - 4, 1))
        middle = bar.y + bar.height // 2 + 4
        yield svg.text((box.x + 4, middle), svg.cut(one.name, label - 8))
        for value, begin, end in _states(one.series, span):
            x = _x(begin, plot, span)
            part = Box(x, bar.y, max(_x(end, plot, span) - x, 1), bar.height)
            yield svg.rect(part, svg.COLOURS[panel.colour(value)])
            said = shown(value, panel.unit, panel.texts)
            if part.width > svg.width_of(said) + 8:
                yield svg.text((part.x + 4, middle), said, fill="#fff")
    yield from _time_axis(plot, span, box)


def _states(series: Series, span: Span) -> Iterator[tuple[float, float, float]]:
    """Give each value that lasted, from when and until when."""
    begun: tuple[float, float] | None = None
    before = -math.inf
    for time, value in series.points:
        if begun and (value != begun[0] or time > before + span.step * 1.5):
            yield begun[0], begun[1], min(before + span.step, time)
            begun = None
        begun = begun or (value, time)
        before = time
    if begun:
        yield begun[0], begun[1], min(before + span.step, span.end)


def _value_axis(plot: Box, panel: Panel, marks: Sequence[float]) -> Iterator[str]:
    for mark in marks:
        y = _y(mark, plot, marks[-1])
        yield svg.line((plot.x, y), (plot.right, y), svg.GRID)
        yield svg.text((plot.x - 6, y + 4), shown(mark, panel.unit), 10, svg.FAINT, "end")
    for value, colour in panel.steps:
        if 0 < value <= marks[-1]:
            y = _y(value, plot, marks[-1])
            yield svg.line((plot.x, y), (plot.right, y), svg.COLOURS[colour], dashed=True)


def _time_axis(plot: Box, span: Span, box: Box) -> Iterator[str]:
    room = max(plot.width // 70, 1)
    length = span.end - span.begin
    every = next((t for t in _TIMES if length / t <= room), _TIMES[-1])
    form = "%H:%M:%S" if every < 60 else "%H:%M"
    for time in range(math.ceil(span.begin / every) * every, span.end + 1, every):
        x = _x(time, plot, span)
        yield svg.line((x, plot.bottom), (x, plot.bottom + 3), svg.FAINT)
        if x + 20 <= box.right:
            said = datetime.fromtimestamp(time, UTC).strftime(form)
            yield svg.text((x, plot.bottom + 14), said, 10, svg.FAINT, "middle")


def _legend(box: Box, series: Sequence[Named]) -> Iterator[tuple[int, int, str, str]]:
    """Give place, name and colour of each entry that has room; at last how many have none."""
    widest = box.width - 24
    rows: list[list[tuple[int, str, str]]] = [[]]
    x = 0
    for i, one in enumerate(series):
        name = svg.cut(one.name or "value", widest - 20, 10)
        width = svg.width_of(name, 10) + 30
        if x and x + width > widest - (60 if len(rows) == _LEGEND_LINES else 0):
            if len(rows) == _LEGEND_LINES:
                rows[-1].append((x - 10, f"+ {len(series) - i} more", ""))
                break
            rows.append([])
            x = 0
        rows[-1].append((x, name, one.colour))
        x += width
    bottom = box.bottom - 8 - _LEGEND_LINE * (len(rows) - 1)
    for row, entries in enumerate(rows):
        for x, name, colour in entries:
            yield box.x + 12 + x, bottom + row * _LEGEND_LINE, name, colour


def _runs(series: Series, plot: Box, span: Span, top: float) -> Iterator[list[Point]]:
    """Give the points of a series, anew after each gap."""
    run: list[Point] = []
    before = -math.inf
    for time, value in series.points:
        if run and (not math.isfinite(value) or time > before + span.step * 1.5):
            yield run
            run = []
        if math.isfinite(value):
            run.append((_x(time, plot, span), _y(value, plot, top)))
            before = time
    if run:
        yield run


def _x(time: float, plot: Box, span: Span) -> int:
    return plot.x + round((time - span.begin) / max(span.end - span.begin, 1) * plot.width)


def _y(value: float, plot: Box, top: float) -> int:
    return plot.bottom - round(max(value, 0.0) / top * plot.height)
