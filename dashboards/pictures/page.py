"""Draws a dashboard as one SVG: its panels where the grid says, over what was asked for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from dashboards.pictures import svg
from dashboards.pictures.lines import called, draw_lines, draw_states
from dashboards.pictures.prometheus import Series, Span
from dashboards.pictures.sheets import Kind, Panel, Sheet
from dashboards.pictures.svg import Box
from dashboards.pictures.tables import draw_matrix, draw_number, draw_table

# What a panel's queries gave, one after another.
Answers = Sequence[Sequence[Series]]

_COLUMN: Final = 48
_ROW: Final = 30
_GAP: Final = 8
_HEAD: Final = 54
_TITLE: Final = 26
_WIDTH: Final = 24 * _COLUMN + 2 * _GAP
_DRAWN_BY: Final = (
    "Drawn of this dashboard's own queries by python -m dashboards.pictures; Grafana looks a "
    "little different."
)


def draw(sheet: Sheet, values: Mapping[str, str], answers: Sequence[Answers], span: Span) -> str:
    """Return the SVG of a dashboard, with what its panels were answered, in their order."""
    rows = max(panel.y + panel.height for panel in sheet.panels)
    height = _HEAD + rows * _ROW + 2 * _GAP + 16
    parts = [
        svg.rect(Box(0, 0, _WIDTH, height), "#f4f5f5"),
        *_head(sheet, values, span),
        *(_drawn(*each, span) for each in zip(sheet.panels, answers, strict=True)),
        svg.text((_GAP + 2, height - 10), _DRAWN_BY, 10, svg.FAINT),
    ]
    return svg.document(_WIDTH, height, sheet.title, parts)


def _head(sheet: Sheet, values: Mapping[str, str], span: Span) -> Iterator[str]:
    begin, end = (datetime.fromtimestamp(t, UTC) for t in (span.begin, span.end))
    form = "%H:%M:%S" if span.end - span.begin < 600 else "%H:%M"
    times = f"{begin:%Y-%m-%d} {begin:{form}} to {end:{form}} UTC"
    said = [f"{c.name} {values[c.name]}" for c in sheet.choices if not c.several]
    yield svg.text((_GAP + 2, 22), sheet.title, 17, bold=True)
    yield svg.text((_GAP + 2, 42), sheet.description, 12, svg.FAINT)
    yield svg.text((_WIDTH - _GAP - 2, 22), ", ".join([*said, times]), 12, svg.FAINT, "end")


def _drawn(panel: Panel, answers: Answers, span: Span) -> str:
    box = Box(
        _GAP + panel.x * _COLUMN + _GAP // 2,
        _HEAD + panel.y * _ROW + _GAP // 2,
        panel.width * _COLUMN - _GAP,
        panel.height * _ROW - _GAP,
    )
    if panel.kind is Kind.HEADING:
        return svg.text((box.x + 2, box.bottom - 4), panel.title, 13, bold=True)
    frame = svg.rect(box, "#fff", "#d8dce1", 3)
    title = svg.text(
        (box.x + 10, box.y + 18), svg.cut(panel.title, box.width - 16, 12), 12, bold=True
    )
    inner = box.inside(0, _TITLE, 0, 0)
    content = _content(inner, panel, answers, span) if any(answers) else _nothing(inner, panel)
    return svg.group(panel.description or panel.title, [frame, title, *content])


def _content(box: Box, panel: Panel, answers: Answers, span: Span) -> Iterator[str]:
    match panel.kind:
        case Kind.LINES:
            yield from draw_lines(box, panel, called(panel, answers), span)
        case Kind.STATES:
            yield from draw_states(box, panel, called(panel, answers), span)
        case Kind.NUMBER:
            yield from draw_number(box, panel, [one for answer in answers for one in answer])
        case Kind.TABLE:
            yield from draw_table(box, panel, answers)
        case Kind.MATRIX:
            yield from draw_matrix(box, panel, [one for answer in answers for one in answer])


def _nothing(box: Box, panel: Panel) -> Iterator[str]:
    x, y = box.x + box.width // 2, box.y + box.height // 2
    yield svg.text((x, y), "No data", 13, svg.FAINT, "middle")
    if panel.when_empty:
        said = svg.cut(panel.when_empty, box.width - 20, 10)
        yield svg.text((x, y + 18), said, 10, svg.FAINT, "middle")
