"""Decimal numbers in documents: written as text ("2.5"), so that no reader rounds them. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

from moe_core.document import InvalidDocument, Reader

_DECIMAL = re.compile(r"-?[0-9]{1,4}(\.[0-9]{1,6})?")


def read_decimal(
    reader: Reader, name: str, low: str, high: str, *, default: str | None = None
) -> Decimal:
    """Read a number from `low` to `high`. Raises InvalidDocument."""
    text = reader.text(name, default=default)
    if not _DECIMAL.fullmatch(text) or not Decimal(low) <= Decimal(text) <= Decimal(high):
        right = f"a decimal number as text, from {low} to {high}, with at most six digits after"
        raise InvalidDocument(f"{reader.path}.{name} is {text!r:.60}; it must be {right} the point")
    return Decimal(text)


def show_decimal(value: Decimal) -> str:
    """Return the shortest text of a number, always the same for equal ones."""
    return f"{value.normalize():f}"
