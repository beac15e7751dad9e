"""Answers to the queries of dashboards, made up: restless ones, as many as there may be."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Final

from dashboards.pictures.page import Answers
from dashboards.pictures.prometheus import Series, Span
from dashboards.pictures.sheets import Kind, Panel, Sheet, Target

SPAN: Final = Span(1_790_000_000, 1_790_003_600, 43)
_BY: Final = re.compile(r"\bby \(([^()]*)\)")
_SIZES: Final = {"s": 0.3, "percentunit": 1.0, "bytes": 3e8, "none": 2.0}


def answered(sheet: Sheet, many: int, seed: int = 0) -> Sequence[Answers]:
    """Return so many series for each query that draws lines, restless ones."""
    draw = random.Random(seed)
    return [[list(_series(panel, t, many, draw)) for t in panel.targets] for panel in sheet.panels]


def _series(panel: Panel, target: Target, many: int, draw: random.Random) -> Iterator[Series]:
    names = sorted({name for by in _BY.findall(target.expr) for name in by.split(", ")} - {"le"})
    size = _SIZES.get(panel.unit, 400.0)
    for i in range({Kind.NUMBER: 1, Kind.MATRIX: 512, Kind.TABLE: 50}.get(panel.kind, many)):
        labels = {name: f"{name}-{i}" for name in names}
        if panel.kind is Kind.MATRIX:
            labels = {"layer": str(i // 16), "expert": f"e{i % 16}"}
        yield Series(labels, tuple(_points(panel, target, size, draw)))


def _points(
    panel: Panel, target: Target, size: float, draw: random.Random
) -> Iterator[tuple[float, float]]:
    begin = SPAN.end if target.instant else SPAN.begin
    for time in range(begin, SPAN.end + 1, SPAN.step):
        value = draw.random() * size
        yield float(time), float(value > 0.2) if panel.kind is Kind.STATES else value
