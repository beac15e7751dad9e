"""Says values in Grafana's units, and where an axis has its marks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

_PER_SECOND: Final = {"rowsps": " rows/s", "reqps": " req/s", "ops": " ops/s"}
_DURATIONS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_LARGE: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES: Final = ((1 << 30, " GiB"), (1 << 20, " MiB"), (1 << 10, " KiB"))


def shown(value: float, unit: str, texts: Mapping[str, str] | None = None) -> str:
    """Return a value as it is read; `texts` are said instead of some."""
    if texts and f"{value:g}" in texts:
        return texts[f"{value:g}"]
    if not math.isfinite(value):
        return str(value)
    match unit:
        case "percentunit":
            return f"{_short(value * 100)}%"
        case "s":
            return _duration(value)
        case "bytes":
            return _scaled(value, _BYTES, " B")
        case "none":
            return _short(value)
    return _scaled(value, _LARGE, "") + _PER_SECOND.get(unit, "")


def axis(highest: float, unit: str) -> tuple[float, ...]:
    """Return three to six marks from 0 on, the last one not below the highest value."""
    if highest <= 0 or not math.isfinite(highest):
        highest = 1.0
    base = 1024.0 if unit == "bytes" else 1000.0
    scale = base ** math.floor(math.log(highest, base) + 1e-9) if unit == "bytes" else 1.0
    rough = highest / scale / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9)) * scale
    count = math.ceil(highest / step - 1e-9)
    return tuple(i * step for i in range(count + 1))


def _duration(seconds: float) -> str:
    if seconds >= 60:
        return f"{_short(seconds / 60)} min" if seconds < 3600 else f"{_short(seconds / 3600)} h"
    for size, name in _DURATIONS:
        if abs(seconds) >= size * (1 - 1e-9):
            return f"{_short(seconds / size)} {name}"
    return "0 s" if seconds == 0 else f"{_short(seconds * 1e6)} µs"


def _scaled(value: float, sizes: tuple[tuple[float, str], ...], plain: str) -> str:
    for size, name in sizes:
        if abs(value) >= size:
            return f"{_short(value / size)}{name}"
    return f"{_short(value)}{plain}"


def _short(value: float) -> str:
    """Return three digits that count, without zeros at the end."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{value:.2g}" if "e" not in text and value and abs(value) < 1e-4 else text
