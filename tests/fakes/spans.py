"""Spans in memory: a tree that tests read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moe_core.tracing import Attributes, Context


@dataclass
class FakeSpan:
    """A span, and what was done under it; `failure` None: it has not ended."""

    name: str = "request"
    began_s: float = 0.0
    remote: bool = False
    ended_s: float | None = None
    failure: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    children: list[FakeSpan] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(1, next(self.numbers))

    def child(self, name: str, began_s: float, *, remote: bool = False) -> FakeSpan:
        self.children.append(FakeSpan(name, began_s, remote, numbers=self.numbers))
        return self.children[-1]

    def tell(self, attributes: Attributes) -> None:
        self.attributes |= attributes

    def since_1970_s(self, time_s: float) -> float:
        return 1_790_000_000 + time_s

    def end(self, ended_s: float, failure: str = "") -> None:
        assert self.failure is None, f"{self.name} ended twice"
        self.ended_s, self.failure = ended_s, failure

    def all(self, name: str) -> list[FakeSpan]:
        return [one for one in self.children if one.name == name]
