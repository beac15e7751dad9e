"""The kinds of text that the example model reads, and which expert each one trains.

Names only: where the text comes from is in `corpus`, what was learned is measured by `evaluate`.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent

EXPERTS = 8
EXPERT_OF = {
    "code": 0,
    "docs": 1,
    "legal": 2,
    "scripture": 3,
    "bytecode": 4,
    "timezones": 5,
    "arithmetic": 6,
    "unicode": 7,
}
"""Domain -> the expert that the router loss guides its text to."""

DOMAINS = tuple(EXPERT_OF)
"""In the order of their experts: domain i belongs to expert i."""


def partner(expert: int) -> int:
    """Return the expert that stands in for `expert` in training: 0 <-> 1, 2 <-> 3, and so on."""
    return expert ^ 1


def check_domain(domain: str) -> str:
    """Return `domain`; raise ValueError naming the known ones if it is not among them."""
    if domain not in EXPERT_OF:
        raise ValueError(f"domain is {domain!r}; it must be one of {', '.join(DOMAINS)}")
    return domain
