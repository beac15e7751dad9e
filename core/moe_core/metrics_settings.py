"""How a program is told where to give its metrics, and how much of them: read once, at the edge."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

NONE: Final = "none"


class Detail(StrEnum):
    """ROLLUP: sums, and what stands out of what is many. FULL: each layer of each expert."""

    ROLLUP = "Rollup"
    FULL = "Full"


def read_detail(text: str) -> Detail:
    """Read it. Raises ValueError, which says what would be right."""
    if text not in set(Detail):
        raise ValueError(f"it must be one of {', '.join(Detail)}")
    return Detail(text)


def read_address(text: str) -> tuple[str, int] | None:
    """Read HOST:PORT; None for `none`, no port at all. Raises ValueError."""
    if text == NONE:
        return None
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"it must be HOST:PORT, or {NONE} for no port")
    return host.strip("[]"), int(port)
