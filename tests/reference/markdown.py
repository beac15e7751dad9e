"""Small pieces of Markdown that the pages of the reference are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

MADE = "Made by `python -m tests.reference`; do not edit it by hand."


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a table; nothing where there are no rows."""
    lines = [_line(row) for row in rows]
    if lines:
        yield from ("", _line(headers))
        yield _line(["---"] * len(headers))
        yield from lines


def code(text: str) -> str:
    """Return text as it stands, nothing where it is empty."""
    return f"`{text}`" if text else ""


def prose(text: str) -> str:
    """Return text that was wrapped for another page as one line, angle brackets shown."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part.replace("<", "&lt;") if i % 2 == 0 else part for i, part in enumerate(parts)
    )


def page(lines: Iterable[str]) -> str:
    """Return a page of these lines, with one empty line where there are more."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*lines, ""]))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
