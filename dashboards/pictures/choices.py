"""Puts values in the place of a dashboard's variables, as Grafana does before it asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ALL: Final = ".+"
# Not $1, which is of label_replace.
_VARIABLE: Final = re.compile(r"\$([a-z_]\w*)")
_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")

Values = Mapping[str, str]


def built_in(span_s: int, rate_interval: str) -> Values:
    """Return the values of Grafana's own variables."""
    return {"__range": f"{span_s}s", "__rate_interval": rate_interval}


def filled(query: str, values: Values) -> str:
    """Return a query with the values put in. Raises ValueError naming a variable without one."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise ValueError(f"${found[1]} has no value; there are {', '.join(sorted(values))}")
        return values[found[1]]

    return _VARIABLE.sub(value, query)


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return what a series is called."""
    if legend:
        return _LABEL.sub(lambda found: labels.get(found[1], ""), legend)
    said = (f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return f"{labels.get('__name__', '')}{{{', '.join(said)}}}"


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return what sorts e2 before e10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
